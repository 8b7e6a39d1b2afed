"""The door for Inference, and Inference coming through it."""

import json
import math
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from inspect import signature

import cv2
import numpy as np
import pytest
import torch
from inference_models.entities import ImageDimensions
from inference_models.errors import ModelInputError

from workflow_blocks.inference_host.model import Moondream2Model
from workflow_blocks.inference_host.results import to_detections
from workflow_blocks.moondream2.runtime import Query, Runtime


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


@pytest.mark.parametrize("size", [(40, 30), (500, 900)])
def test_images_in_either_order_of_channels_are_encoded_alike(model, size):
    rgb = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    bgr = np.ascontiguousarray(rgb[..., ::-1])
    tensor = torch.from_numpy(rgb).permute(2, 0, 1)
    forms = [
        (rgb, "rgb"),
        (bgr, "bgr"),
        (bgr, None),
        (rgb[:, :, ::-1], None),
        (tensor, None),
        (tensor.flip(0), "bgr"),
        ([tensor, bgr], None),
        ([bgr, tensor], None),
    ]

    encoded = [model.encode_images(images, color_format)[0] for images, color_format in forms]

    for image in encoded[1:]:
        own, expected = image.moondream_encoded_image, encoded[0].moondream_encoded_image
        torch.testing.assert_close(own.prefix, expected.prefix, rtol=0, atol=1e-5)


MEMORY = """
import sys, threading, time
import numpy as np
from workflow_blocks.inference_host.model import Moondream2Model

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

model = Moondream2Model.from_pretrained(sys.argv[1], device="cpu")
model.detect([np.zeros((2000, 2000, 3), np.uint8)], ["dog"], max_new_tokens=3)
image = np.full((12000, 12000, 3), 7, np.uint8)
before, most, done = resident(), [0], threading.Event()

def watch():
    while not done.wait(0.002):
        most[0] = max(most[0], resident())

thread = threading.Thread(target=watch)
thread.start()
model.detect([image], ["dog"], max_new_tokens=3)
done.set()
thread.join()
print((most[0] - before) / image.nbytes)
"""


@pytest.mark.long
def test_a_large_image_is_copied_once(golden_package):
    """Pillow's copy, with four bytes for each pixel, is the only one."""
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(golden_package)], capture_output=True, text=True, check=True
    )

    assert float(done.stdout.split()[-1]) < 1.8


def test_detect_gives_clipped_boxes_in_pixels_with_class_ids(model, golden_folder, image_bgr, expected):
    prompts = ["blue square", "red circle"]

    (found,) = model.detect([image_bgr], prompts, input_color_format="bgr", max_new_tokens=36)

    objects = [(i, item) for i, prompt in enumerate(prompts) for item in expected[prompt]]
    boxes = np.array([[item[n] for n in ("x_min", "y_min", "x_max", "y_max")] for _, item in objects])
    np.testing.assert_allclose(found.xyxy, boxes.clip(0, 1) * (300, 200, 300, 200), atol=1e-2)
    assert found.class_id.tolist() == [class_id for class_id, _ in objects]

    detector = Runtime.from_folder(golden_folder)
    (image,) = detector.encode_images([np.ascontiguousarray(image_bgr[..., ::-1])])
    own = [item for found in detector.detect([Query(image, p) for p in prompts], 12) for item in found]
    np.testing.assert_allclose(found.confidence, [item.p_object * item.p_box for item in own], atol=1e-5)


@pytest.mark.parametrize("form", ["array", "list", "rgb array", "tensor", "tensor batch"])
def test_detect_takes_every_form_of_image(model, image_bgr, form):
    reference = model.detect([image_bgr], ["red circle"])[0].xyxy
    assert len(reference) > 0
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


def test_an_empty_result_has_the_shape_of_boxes():
    found = to_detections([[], []], ImageDimensions(20, 30))

    assert found.xyxy.shape == (0, 4)
    assert found.class_id.shape == found.confidence.shape == (0,)


@pytest.mark.parametrize("at_once", [1, 2, 5])
def test_images_together_give_the_same_as_alone(model, golden_folder, monkeypatch, at_once):
    monkeypatch.setattr(Runtime, "images_at_once", at_once)
    paths = sorted((golden_folder / "images").iterdir())
    images = [cv2.imread(str(path)) for path in paths]
    prompts = ["red circle", "blue square", "dog"]

    together = model.detect(images, prompts, max_new_tokens=12)

    assert len(together) == len(images)
    assert any(len(found.xyxy) > 0 for found in together)
    for image, found in zip(images, together, strict=True):
        (alone,) = model.detect([image], prompts, max_new_tokens=12)
        torch.testing.assert_close(found.xyxy, alone.xyxy, rtol=0, atol=1e-2)
        torch.testing.assert_close(found.class_id, alone.class_id)


@pytest.mark.parametrize(
    ("images", "named"),
    [
        pytest.param([], "at least one", id="no images"),
        pytest.param([np.zeros((0, 4, 3), np.uint8)], "(0, 4, 3)", id="no rows"),
        pytest.param([np.zeros((4, 4, 4), np.uint8)], "(4, 4, 4)", id="four channels"),
        pytest.param([np.zeros((4, 4), np.uint8)], "(4, 4)", id="grey"),
        pytest.param([np.zeros((4, 4, 3), np.float32)], "float32", id="not bytes"),
        pytest.param([torch.zeros((4, 4, 3), dtype=torch.uint8)], "(4, 4, 3)", id="channels last"),
        pytest.param([torch.zeros((1, 3, 4, 4), dtype=torch.uint8)], "(1, 3, 4, 4)", id="batch in a list"),
        pytest.param(["image.png"], "str", id="a path"),
    ],
)
def test_an_image_of_another_form_is_an_input_error(model, image_bgr, images, named):
    with pytest.raises(ModelInputError, match=re.escape(named)):
        model.detect([image_bgr, *images] if images else images, ["red circle"])

    assert len(model.detect([image_bgr], ["red circle"], max_new_tokens=3)[0].xyxy) == 1


@pytest.mark.parametrize(
    ("images", "named"),
    [
        (np.zeros((8, 10), np.uint8), "uint8 (8, 10); give a uint8 array (H, W, 3)"),
        (torch.zeros((8, 10), dtype=torch.uint8), "torch.uint8 (8, 10); give a uint8 tensor (3, H, W)"),
        (np.zeros(10, np.uint8), "uint8 (10,)"),
        (np.array(5, np.uint8), "uint8 ()"),
        (np.zeros((1, 1, 8, 10, 3), np.uint8), "uint8 (1, 1, 8, 10, 3)"),
    ],
)
def test_an_array_that_is_no_image_is_named_as_a_whole(model, images, named):
    with pytest.raises(ModelInputError, match=re.escape(named)):
        model.detect(images, ["red circle"])


@pytest.mark.parametrize("classes", [[], "red circle", [""], ["red circle", "  "], [3], None])
def test_invalid_classes_are_an_input_error(model, image_bgr, classes):
    with pytest.raises(ModelInputError, match="classes"):
        model.detect([image_bgr], classes)


def test_an_unknown_color_format_is_an_input_error(model, image_bgr):
    with pytest.raises(ModelInputError, match="hsv"):
        model.detect([image_bgr], ["red circle"], input_color_format="hsv")


def test_threads_get_the_results_of_serial_calls(model, golden_folder):
    images = [cv2.imread(str(path)) for path in sorted((golden_folder / "images").iterdir())]
    serial = [model.detect([image], ["red circle"], max_new_tokens=9)[0].xyxy for image in images]
    assert sum(map(len, serial)) > 0

    with ThreadPoolExecutor(8) as threads:
        results = threads.map(
            lambda image: model.detect([image], ["red circle"], max_new_tokens=9)[0].xyxy, images * 3
        )

    for found, expected in zip(results, serial * 3, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-2)


def test_threads_that_load_at_once_get_one_model_that_works(
    model, model_manager, golden_package, image_bgr, tmp_path
):
    package = shutil.copytree(golden_package, tmp_path / "package")

    def load_and_run(_):
        model_manager.add_model(model_id=str(package), api_key=None)
        return model_manager.run_tensor_native_inference(
            model_id=str(package), images=[image_bgr], classes=["red circle"], max_new_tokens=9
        )

    with ThreadPoolExecutor(8) as threads:
        results = list(threads.map(load_and_run, range(16)))

    (expected,) = model.detect([image_bgr], ["red circle"], max_new_tokens=9)
    assert len(expected.xyxy) > 0
    for (found,) in results:
        torch.testing.assert_close(found.xyxy, expected.xyxy, rtol=0, atol=1e-2)


@pytest.mark.parametrize("backend", ["eager", pytest.param("inductor", marks=pytest.mark.long)])
def test_compiled_blocks_find_the_same(golden_package, model, image_bgr, monkeypatch, backend):
    """The backend `eager` runs what `torch.compile` has traced; `inductor`, its default, makes C++ of it."""
    compiled_functions = []
    torch_compile = torch.compile

    def compile_with_backend(function, **options):
        compiled_functions.append(function)
        return torch_compile(function, backend=backend, **options)

    monkeypatch.setattr(torch, "compile", compile_with_backend)
    monkeypatch.setenv("MOONDREAM2_COMPILE", "1")
    compiled = Moondream2Model.from_pretrained(str(golden_package))

    (found,) = compiled.detect([image_bgr], ["red circle", "dog"], max_new_tokens=9)

    (expected,) = model.detect([image_bgr], ["red circle", "dog"], max_new_tokens=9)
    assert compiled_functions
    assert len(expected.xyxy) > 0
    torch.testing.assert_close(found.xyxy, expected.xyxy, rtol=0, atol=1e-2)


def test_a_model_in_bfloat16_detects(golden_package, image_bgr, monkeypatch):
    monkeypatch.setenv("MOONDREAM2_DTYPE", "bfloat16")
    model = Moondream2Model.from_pretrained(str(golden_package))

    (found,) = model.detect([image_bgr], ["red circle", "dog"], max_new_tokens=9)

    assert len(found.xyxy) > 0
    assert torch.isfinite(found.confidence).all()


@pytest.mark.parametrize(("tokens", "most"), [(3, 1), (6, 2), (1, 1), (5, 1)])
def test_max_new_tokens_bounds_the_objects_of_each_class(model, image_bgr, tokens, most):
    (found,) = model.detect([image_bgr], ["red circle"], max_new_tokens=tokens)

    assert len(found.xyxy) == most


@pytest.mark.parametrize("skill", ["detect", "point"])
@pytest.mark.parametrize("tokens", [0, -1, 2.5, True, "many", math.nan])
def test_no_objects_can_be_found_in_no_tokens(model, image_bgr, skill, tokens):
    with pytest.raises(ModelInputError, match=r"max_new_tokens is .*; give a whole number from 1"):
        getattr(model, skill)([image_bgr], ["red circle"], max_new_tokens=tokens)


@pytest.mark.parametrize("skill", ["detect", "point"])
def test_unknown_arguments_are_refused(model, image_bgr, skill):
    with pytest.raises(TypeError, match="max_new_token'"):
        getattr(model, skill)([image_bgr], ["red circle"], max_new_token=5)


def test_from_pretrained_names_what_inference_asks_for():
    """Inference passes `local_files_only` only to classes that name it."""
    assert "local_files_only" in signature(Moondream2Model.from_pretrained).parameters


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


def test_a_package_built_by_an_earlier_release_loads(golden_package, model_manager, image_bgr, tmp_path):
    package = shutil.copytree(golden_package, tmp_path / "package")
    (package / "model.py").write_text(
        "from workflow_blocks.moondream2.inference_model import Moondream2Model\n"
        '__all__ = ["Moondream2Model"]\n'
    )

    model_manager.add_model(model_id=str(package), api_key=None)
    (found,) = model_manager.run_tensor_native_inference(
        model_id=str(package), images=[image_bgr], classes=["red circle"], input_color_format="bgr"
    )

    assert len(found.xyxy) > 0
