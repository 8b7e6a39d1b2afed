"""The adapter between Inference's model manager and our model."""

import cv2
import numpy as np
import pytest
from inference.core.entities.requests.inference import LMMInferenceRequest
from inference.core.entities.requests.moondream2 import Moondream2InferenceRequest
from inference.core.workflows.errors import ClientCausedStepExecutionError
from inference_models.errors import ModelInputError

from tests.scenes import image_bgr
from tests.stand_ins import GOLDEN, checkpoint_with_text
from workflow_blocks.inference_host.adapter import TASKS
from workflow_blocks.inference_host.model_package import write_package_files
from workflow_blocks.package_ids import id_of_package

DEMO = "moondream2-demo"


@pytest.fixture(scope="module")
def demo(model_manager):
    model_manager.add_model(model_id=DEMO, api_key=None)
    return model_manager


@pytest.fixture(scope="module")
def talking(model_manager, tmp_path_factory):
    """The id of a package that has every skill."""
    folder = checkpoint_with_text(tmp_path_factory.mktemp("talking"))
    write_package_files(folder)
    model_manager.add_model(model_id=str(folder), api_key=None)
    return str(folder)


@pytest.fixture(scope="module")
def golden_image():
    return cv2.imread(str(GOLDEN / "images" / "0_300x200.png"))


@pytest.mark.parametrize("request_type", [LMMInferenceRequest, Moondream2InferenceRequest])
def test_requests_get_real_confidences(demo, request_type):
    image = {"type": "numpy_object", "value": image_bgr(1)}
    response = demo.infer_from_request_sync(
        DEMO, request_type(model_id=DEMO, image=image, prompt="square", text=[])
    )
    (native,) = demo.run_tensor_native_inference(
        DEMO, images=[image_bgr(1)], classes=["square"], input_color_format="bgr"
    )

    boxes = response.predictions
    assert len(boxes) == len(native.xyxy) > 0
    np.testing.assert_allclose([box.confidence for box in boxes], native.confidence, atol=1e-5)
    assert max(box.confidence for box in boxes) < 1
    assert {(box.class_name, box.class_id) for box in boxes} == {("square", 0)}


def test_a_core_step_gets_real_confidences(run_workflow):
    definition = {
        "version": "1.0",
        "inputs": [{"type": "InferenceImage", "name": "image"}],
        "steps": [
            {
                "type": "roboflow_core/moondream2@v1",
                "name": "detection",
                "images": "$inputs.image",
                "prompt": "square",
                "model_version": DEMO,
            }
        ],
        "outputs": [{"type": "JsonField", "name": "found", "selector": "$steps.detection.predictions"}],
    }

    (result,) = run_workflow(definition, image=image_bgr(1))

    confidences = result["found"].confidence
    assert len(confidences) > 0
    assert all(0 < confidence < 1 for confidence in confidences)


def test_every_task_is_reached_by_its_name(talking, model_manager, golden_image):
    arguments = {
        "encode_images": {},
        "detect": {"classes": ["red circle"]},
        "point": {"classes": ["red circle"]},
        "query": {"question": "what is this?", "max_new_tokens": 5},
        "caption": {"length": "short", "max_new_tokens": 5},
        "answer": {"questions": ["what is this?"], "max_new_tokens": 5},
        "classify": {"questions": ["what is this?"], "classes": [["yes", "no"]]},
        "describe": {"length": "short", "max_new_tokens": 5},
    }
    assert set(arguments) == set(TASKS)

    results = {
        task: model_manager.run_tensor_native_inference(talking, images=[golden_image], task=task, **options)
        for task, options in arguments.items()
    }

    (encoded,) = results["encode_images"]
    assert encoded.image_dimensions == golden_image.shape[:2]
    assert len(results["detect"][0].xyxy) > 0
    assert results["point"][0].xy.shape[1] == 2
    assert results["query"] == [results["answer"][0][0].text.strip()]
    assert results["caption"] == [results["describe"][0].text.strip()]
    assert sum(scored.probability for scored in results["classify"][0][0]) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("task", ["", "__init__", "from_pretrained", "_find", "about_", "to_arrays", 5])
def test_other_methods_are_not_reached(demo, task):
    with pytest.raises(ModelInputError, match="give one of encode_images, detect, point"):
        demo.run_tensor_native_inference(DEMO, images=[image_bgr(1)], task=task)


def test_a_model_says_what_runs_it(demo):
    assert demo.run_tensor_native_inference(DEMO, task="about") == {
        "runtime": "workflow_blocks",
        "device": "cpu",
        "dtype": "float32",
        "max_crops": "6",
    }


@pytest.mark.parametrize("model_id", [DEMO, id_of_package("/\u6a21\u578b")])
def test_a_local_package_needs_the_setting(model_manager, monkeypatch, model_id):
    monkeypatch.setattr(
        "workflow_blocks.inference_host.adapter.ALLOW_INFERENCE_MODELS_DIRECTLY_ACCESS_LOCAL_PACKAGES", False
    )
    from workflow_blocks.inference_host.adapter import Moondream2Adapter

    with pytest.raises(ClientCausedStepExecutionError) as raised:
        Moondream2Adapter(model_id)

    assert "ALLOW_INFERENCE_MODELS_DIRECTLY_ACCESS_LOCAL_PACKAGES=True" in raised.value.public_message
    assert raised.value.status_code == 400


class InferencesOwn:
    """A model as Inference's own class gives it: confidences of 1, and fewer methods."""

    def detect(self, images, classes):
        import torch
        from inference_models import Detections

        return [
            Detections(
                xyxy=torch.tensor([[1, 2, 5, 10]]),
                class_id=torch.zeros(1, dtype=torch.int64),
                confidence=torch.ones(1),
            )
        ]

    def query(self, images, question):
        return ["yes"]


@pytest.fixture
def own_of_inference(monkeypatch):
    from workflow_blocks.inference_host.adapter import Moondream2Adapter

    monkeypatch.setattr("inference_models.AutoModel.from_pretrained", lambda *_, **__: InferencesOwn())
    return Moondream2Adapter(DEMO)


def test_models_of_inferences_own_class_stay_as_they_are(own_of_inference):
    (response,) = own_of_inference.detect(image_bgr(1), prompt="dog")

    assert [(b.x, b.y, b.width, b.height, b.confidence) for b in response.predictions] == [(3, 6, 4, 8, 1.0)]
    assert own_of_inference.about() == {"runtime": "inference"}
    assert own_of_inference.run_tensor_native_inference([], task="query", question="?") == ["yes"]
    with pytest.raises(ModelInputError, match=r"'classify'.*'inference'.*does not have"):
        own_of_inference.run_tensor_native_inference([], task="classify")
