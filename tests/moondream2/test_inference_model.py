"""The door for Inference, and Inference coming through it."""

import json

import cv2
import numpy as np
import pytest
import torch
from inference_models.errors import ModelInputError

from workflow_blocks.moondream2.inference_model import Moondream2Model


@pytest.fixture(scope="module")
def model(golden_package):
    return Moondream2Model.from_pretrained(str(golden_package), device="cpu", countinference=None)


@pytest.fixture(scope="module")
def image_bgr(golden_folder):
    return cv2.imread(str(golden_folder / "images" / "0_300x200.png"))


@pytest.fixture(scope="module")
def expected(golden_folder):
    cases = json.loads((golden_folder / "expected_detections.json").read_text())
    return {case["prompt"]: case["objects"] for case in cases if case["image"] == "images/0_300x200.png"}


def test_detect_gives_clipped_boxes_in_pixels_with_class_ids(model, image_bgr, expected):
    prompts = ["blue square", "red circle"]

    (found,) = model.detect([image_bgr], prompts, input_color_format="bgr", max_new_tokens=36)

    objects = [(i, item) for i, prompt in enumerate(prompts) for item in expected[prompt]]
    boxes = np.array([[item[n] for n in ("x_min", "y_min", "x_max", "y_max")] for _, item in objects])
    np.testing.assert_allclose(found.xyxy, boxes.clip(0, 1) * (300, 200, 300, 200), atol=1e-2)
    assert found.class_id.tolist() == [class_id for class_id, _ in objects]
    assert found.confidence.tolist() == pytest.approx([item["p_object"] for _, item in objects], abs=1e-3)


@pytest.mark.parametrize("form", ["array", "list", "rgb array", "tensor", "tensor batch"])
def test_detect_takes_every_form_of_image(model, image_bgr, form):
    reference = model.detect([image_bgr], ["red circle"])[0].xyxy
    image_rgb = np.ascontiguousarray(image_bgr[..., ::-1])
    tensor = torch.from_numpy(image_rgb).permute(2, 0, 1)
    images, color = {
        "array": (image_bgr, None),
        "list": ([image_bgr], "bgr"),
        "rgb array": (image_rgb, "rgb"),
        "tensor": ([tensor], None),
        "tensor batch": (tensor.unsqueeze(0), "rgb"),
    }[form]

    (found,) = model.detect(images, ["red circle"], input_color_format=color)

    torch.testing.assert_close(found.xyxy, reference)


def test_an_empty_result_has_the_shape_of_boxes(model, image_bgr):
    (found,) = model.detect([image_bgr], [])

    assert found.xyxy.shape == (0, 4)
    assert found.class_id.shape == found.confidence.shape == (0,)


@pytest.mark.parametrize(("tokens", "most"), [(3, 1), (6, 2), (1, 1), (0, 1)])
def test_max_new_tokens_bounds_the_objects_of_each_class(model, image_bgr, tokens, most):
    (found,) = model.detect([image_bgr], ["red circle"], max_new_tokens=tokens)

    assert len(found.xyxy) == most


def test_a_prompt_too_long_is_an_input_error(model, image_bgr):
    with pytest.raises(ModelInputError, match="tokens"):
        model.detect([image_bgr], ["word " * 2000])


def test_inference_loads_the_package_through_its_model_manager(
    model, model_manager, golden_package, image_bgr
):
    model_manager.add_model(model_id=str(golden_package), api_key=None)

    (found,) = model_manager.run_tensor_native_inference(
        model_id=str(golden_package),
        images=[image_bgr],
        classes=["red circle"],
        input_color_format="bgr",
        max_new_tokens=36,
    )

    torch.testing.assert_close(
        found.xyxy, model.detect([image_bgr], ["red circle"], max_new_tokens=36)[0].xyxy
    )
