"""The block `workflow_blocks/moondream2_prompt_detection@v1`."""

from collections import defaultdict
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from inference.core.cache.air_gapped import has_cached_model_variant
from inference.core.env import ALLOW_INFERENCE_MODELS_DIRECTLY_ACCESS_LOCAL_PACKAGES
from inference.core.workflows.core_steps.common.entities import StepExecutionMode
from inference.core.workflows.execution_engine.entities.base import Batch, OutputDefinition, WorkflowImageData
from inference.core.workflows.execution_engine.entities.types import (
    BOOLEAN_KIND,
    DICTIONARY_KIND,
    FLOAT_ZERO_TO_ONE_KIND,
    IMAGE_KIND,
    INTEGER_KIND,
    LIST_OF_VALUES_KIND,
    OBJECT_DETECTION_PREDICTION_KIND,
    ROBOFLOW_MODEL_ID_KIND,
    STRING_KIND,
    ImageInputField,
    Selector,
)
from inference.core.workflows.prototypes.block import (
    BlockResult,
    DependentResource,
    Runtime,
    Severity,
    WorkflowBlock,
    WorkflowBlockManifest,
    actual_restrictions_of,
    is_workflow_selector,
    roboflow_platform_model,
)
from inference.core.workflows.prototypes.models_provider import ModelsProvider
from inference_models.errors import ModelInputError
from pydantic import ConfigDict, Field, field_validator
from roboflow_workflows.execution_engine.entities.workload import (
    Discovery,
    RuntimeRestriction,
    WorkOperation,
)

from workflow_blocks.blocks.common.client_errors import InvalidInputError, UnavailableError, as_client_error
from workflow_blocks.blocks.common.data_representation import to_engine
from workflow_blocks.blocks.common.images import to_bgr_uint8, to_jpeg_base64
from workflow_blocks.blocks.common.manifest_fields import Flag, ZeroToOne, checked, explain_errors
from workflow_blocks.blocks.common.model_loading import load_model
from workflow_blocks.blocks.common.model_version import (
    RELEASED_MODEL,
    ModelVersion,
    check_model_version,
    is_local,
)
from workflow_blocks.blocks.common.remote import remote_server
from workflow_blocks.blocks.moondream2_prompt_detection.predictions import (
    MAX_DETECTIONS,
    DetectionLimits,
    ImageDetections,
    MaxDetections,
    attach_workflow_data,
    select_detections,
)
from workflow_blocks.blocks.moondream2_prompt_detection.prompts import (
    MAX_PROMPT_LENGTH,
    MAX_PROMPTS,
    Prompt,
    PromptList,
    prompts_of_images,
)
from workflow_blocks.blocks.moondream2_prompt_detection.remote_detection import detect_remotely
from workflow_blocks.bundled_model import DEMO_MODEL, LOCAL_PACKAGES_SETTING
from workflow_blocks.moondream2.config import STEPS_PER_OBJECT

SHORT_DESCRIPTION = "Detect objects by naming them, with Moondream2."

LONG_DESCRIPTION = f"""
Detect objects by naming them. Give an image and one or more prompts, such as "red car" or "person with a
helmet", and get an object detection prediction with a box for each object found. No training and no fixed
list of classes are needed.

## How This Block Works

The block:

1. Takes one prompt or a list of prompts, either the same for all images or different for each image. A
   string is one prompt; commas do not split it
2. Runs Moondream2 for all images and all their prompts
3. Makes each prompt a class: its text is the class name, and its place in the list is the class id
4. Clips boxes to the image and drops boxes outside it
5. Drops boxes below `confidence`, removes duplicates by non-maximum suppression (`iou_threshold`,
   `class_agnostic_nms`), and keeps the `max_detections` most confident boxes of each prompt
6. Returns `predictions`, the object detection prediction, and `counts`, a dictionary with the number of
   boxes of each prompt, including zeros

`model_version` selects the model:

- `{RELEASED_MODEL}` is the released Moondream2, which Inference downloads
- The path of a **local model package** runs the weights in it
- `{DEMO_MODEL}` is a small model that comes with this plugin and runs on any CPU. It knows only drawn
  shapes, such as "red circle" or "blue star"

All of them run on this plugin's runtime: an image is encoded once for all its prompts, every box has a real
confidence, and weights are loaded from safetensors files only. The server's setting `MOONDREAM2_RUNTIME` can
choose Inference's own class for downloaded models. That class gives every box the confidence 1.0.

## Example

This step detects two classes. For an image of one person without a helmet, `$steps.detection.counts` is
`{{"person": 1, "person with a helmet": 0}}`.

```json
{{
  "type": "workflow_blocks/moondream2_prompt_detection@v1",
  "name": "detection",
  "images": "$inputs.image",
  "prompts": ["person", "person with a helmet"],
  "model_version": "{RELEASED_MODEL}",
  "max_detections": 20
}}
```

## Common Use Cases

- **Open-Vocabulary Detection**: Find objects that no trained model knows, by describing them in words
- **Counting**: Count several kinds of objects in one step with `counts`
- **Alerts**: Send a notification only if an object is in the image
- **Redaction**: Find faces, screens or license plates, and blur them
- **Dataset Labeling**: Label images by prompts, and train a smaller model on the dataset

## Connecting to Other Blocks

- **After image inputs, Image Slicer or Dynamic Crop** to search whole images, tiles (for small objects) or
  the boxes of an earlier step
- **After blocks that output text or lists** to use prompts that the workflow computes, also different ones
  for each image
- **Before visualization blocks** (e.g., Bounding Box, Label, Blur or Pixelate Visualization) to draw or hide
  what was found
- **Before blocks that take object detections** (e.g., Detections Filter, Byte Tracker, Detections Stitch)
- **Before Detections Table or Detections Dataset Export** to write a CSV file or a COCO, YOLO or Pascal VOC
  dataset
- **Before Continue If** to run other steps only if something was found

## Requirements

- Local model packages and `{DEMO_MODEL}` need
  `{LOCAL_PACKAGES_SETTING}=True` on the server
- `{RELEASED_MODEL}` needs about 4 GB of weights, and is slow without a GPU
- Without internet access, the block works with local model packages and `{DEMO_MODEL}`, and with
  `{RELEASED_MODEL}` if its weights were downloaded with `OFFLINE_MODE_WARM_UP=True`
- With `MOONDREAM2_API_URL` set on the server, another Inference server runs the model
"""


class BlockManifest(WorkflowBlockManifest):
    model_config = ConfigDict(
        json_schema_extra={
            "name": "Moondream2 Prompt Detection",
            "version": "v1",
            "short_description": SHORT_DESCRIPTION,
            "long_description": LONG_DESCRIPTION,
            "license": "Apache-2.0",
            "block_type": "model",
            "search_keywords": [
                "Moondream2",
                "moondream",
                "vision language model",
                "VLM",
                "open vocabulary",
                "zero-shot",
                "object detection",
                "prompt",
            ],
            "ui_manifest": {"section": "model", "icon": "fal fa-moon", "blockPriority": 5.4},
        },
        protected_namespaces=(),
    )
    type: Literal["workflow_blocks/moondream2_prompt_detection@v1"]
    images: Selector(kind=[IMAGE_KIND]) = ImageInputField
    prompts: (
        Selector(kind=[STRING_KIND, LIST_OF_VALUES_KIND])
        | Prompt
        | PromptList[Selector(kind=[STRING_KIND]) | Prompt]
    ) = Field(
        title="Prompts",
        description="What to find: one prompt, a list of prompts, or a selector to either (the same for all "
        "images, or one value for each image). A string is one prompt; commas do not split it. Repeats count "
        f"once. At most {MAX_PROMPTS} prompts of {MAX_PROMPT_LENGTH} characters.",
        examples=["red car", ["person", "person with a helmet"], "$inputs.prompts"],
    )
    model_version: Selector(kind=[ROBOFLOW_MODEL_ID_KIND, STRING_KIND]) | ModelVersion = Field(
        default=RELEASED_MODEL,
        title="Model",
        description=f"The Moondream2 to run: Inference's own ({RELEASED_MODEL}), the path of a local model "
        f"package, or {DEMO_MODEL}, the small bundled model that knows drawn shapes.",
        examples=[RELEASED_MODEL, DEMO_MODEL, "$inputs.model_version"],
        json_schema_extra={"always_visible": True},
    )
    confidence: ZeroToOne | Selector(kind=[FLOAT_ZERO_TO_ONE_KIND]) = Field(
        default=0.0,
        title="Confidence Threshold",
        description="Boxes with a lower confidence are dropped, 0 to 1. Inference's own Moondream2 gives "
        "every box 1.0; models on this plugin's runtime give a real confidence.",
        examples=[0.5, "$inputs.confidence"],
        json_schema_extra={"always_visible": True},
    )
    max_detections: MaxDetections | Selector(kind=[INTEGER_KIND]) = Field(
        default=MAX_DETECTIONS,
        title="Max Detections per Prompt",
        description=f"The most boxes to return for each prompt, 1 to {MAX_DETECTIONS}.",
        examples=[10, "$inputs.max_detections"],
    )
    iou_threshold: ZeroToOne | Selector(kind=[FLOAT_ZERO_TO_ONE_KIND]) = Field(
        default=0.5,
        title="IoU Threshold",
        description="Two boxes that overlap more than this (intersection over union, 0 to 1) count as "
        "one object, and the more confident box stays. 1 keeps all boxes.",
        examples=[0.5, "$inputs.iou_threshold"],
    )
    class_agnostic_nms: Flag | Selector(kind=[BOOLEAN_KIND]) = Field(
        default=False,
        title="Class-Agnostic NMS",
        description="Whether boxes of different prompts also count as one object when they overlap.",
        examples=[True, "$inputs.class_agnostic_nms"],
    )

    _explain_errors = field_validator(
        "images",
        "prompts",
        "model_version",
        "confidence",
        "max_detections",
        "iou_threshold",
        "class_agnostic_nms",
        mode="wrap",
    )(explain_errors)

    @classmethod
    def get_parameters_accepting_batches(cls) -> list[str]:
        return ["images", "prompts"]

    @classmethod
    def describe_outputs(cls) -> list[OutputDefinition]:
        return [
            OutputDefinition(name="predictions", kind=[OBJECT_DETECTION_PREDICTION_KIND]),
            OutputDefinition(name="counts", kind=[DICTIONARY_KIND]),
        ]

    @classmethod
    def get_execution_engine_compatibility(cls) -> str | None:
        return ">=1.3.0,<2.0.0"

    @classmethod
    def get_restrictions(cls) -> list[RuntimeRestriction]:
        return _RESTRICTIONS

    @classmethod
    def get_supported_model_variants(cls) -> list[str] | None:
        """Models whose cached weights this block needs without internet access; None if it needs none.

        The bundled model is always there, where the server loads local packages.
        """
        needs_none = ALLOW_INFERENCE_MODELS_DIRECTLY_ACCESS_LOCAL_PACKAGES
        if needs_none and not has_cached_model_variant([RELEASED_MODEL]):
            return None
        return [RELEASED_MODEL]

    def discover_dependent_resources(self) -> list[DependentResource] | None:
        if not is_workflow_selector(self.model_version) and is_local(self.model_version):
            return []
        return [roboflow_platform_model(model_id=self.model_version, model_id_resolver=_platform_model_id)]

    def discover_work_operations(self) -> list[WorkOperation]:
        return [WorkOperation.MODEL_INFERENCE]

    def get_actual_restrictions(
        self, *, ignore_environment_restrictions: bool = False
    ) -> Discovery[RuntimeRestriction]:
        return actual_restrictions_of(
            declared=_RESTRICTIONS,
            node_id=f"$steps.{self.name}",
            ignore_environment_restrictions=ignore_environment_restrictions,
        )


_RESTRICTIONS = [
    RuntimeRestriction(
        code="slow_without_gpu",
        severity=Severity.SOFT,
        note="The released Moondream2 takes many seconds per image without a GPU. "
        f"The bundled {DEMO_MODEL} runs well on a CPU.",
        applies_to_runtimes=[Runtime.SELF_HOSTED_CPU],
        applies_to_step_execution_modes=[StepExecutionMode.LOCAL],
    ),
    RuntimeRestriction(
        code="hosted_api_has_no_moondream2",
        severity=Severity.SOFT,
        note="Remote step execution needs an Inference server that has Moondream2; "
        "Roboflow's hosted API does not.",
        applies_to_step_execution_modes=[StepExecutionMode.REMOTE],
    ),
]


def _platform_model_id(model_version: str) -> str | None:
    """The model that the engine may load ahead of the run; None for local packages, loaded by the step."""
    return None if is_local(model_version) else model_version


class Moondream2PromptDetectionBlockV1(WorkflowBlock):
    """Finds the objects that prompts name, in batches of images."""

    def __init__(
        self, model_manager: ModelsProvider, api_key: str | None, step_execution_mode: StepExecutionMode
    ) -> None:
        self._model_manager = model_manager
        self._api_key = api_key
        self._step_execution_mode = step_execution_mode

    @classmethod
    def get_init_parameters(cls) -> list[str]:
        return ["model_manager", "api_key", "step_execution_mode"]

    @classmethod
    def get_manifest(cls) -> type[WorkflowBlockManifest]:
        return BlockManifest

    def run(
        self,
        images: Batch[WorkflowImageData],
        prompts: Batch[str | list[str]] | list[Batch[str]],
        model_version: str,
        confidence: float,
        max_detections: int,
        iou_threshold: float,
        class_agnostic_nms: bool,
    ) -> BlockResult:
        try:
            limits = checked(
                DetectionLimits,
                confidence=confidence,
                max_detections=max_detections,
                iou_threshold=iou_threshold,
                class_agnostic_nms=class_agnostic_nms,
            )
            prompts_by_image = prompts_of_images(prompts, len(images))
            server = remote_server(self._step_execution_mode, self._api_key)
            if server is None:
                arrays = [to_bgr_uint8(image.numpy_image) for image in images]
                model_id = load_model(self._model_manager, model_version, self._api_key)
                found = self._detect(model_id, arrays, prompts_by_image, limits.max_detections)
            else:
                encoded = [to_jpeg_base64(image) for image in images]
                model = check_model_version(model_version)
                found = detect_remotely(server, encoded, prompts_by_image, model, limits.max_detections)
        except (InvalidInputError, ModelInputError) as error:
            raise as_client_error(error, self) from error
        except UnavailableError as error:
            raise as_client_error(error, self, error.status_code) from error
        return [
            _to_outputs(detections, image, image_prompts, limits)
            for detections, image, image_prompts in zip(found, images, prompts_by_image, strict=True)
        ]

    def _detect(
        self,
        model_id: str,
        images_bgr: list[npt.NDArray[np.uint8]],
        prompts_by_image: list[list[str]],
        max_detections: int,
    ) -> list[ImageDetections]:
        """Runs the model once for all images with the same prompts."""
        images_by_prompts: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for index, image_prompts in enumerate(prompts_by_image):
            images_by_prompts[tuple(image_prompts)].append(index)
        found: dict[int, ImageDetections] = {}
        for prompts, indices in images_by_prompts.items():
            results = self._model_manager.run_tensor_native_inference(
                model_id=model_id,
                images=[images_bgr[index] for index in indices],
                classes=list(prompts),
                input_color_format="bgr",
                max_new_tokens=STEPS_PER_OBJECT * max_detections,
            )
            found.update(zip(indices, map(ImageDetections.from_model, results), strict=True))
        return [found[index] for index in range(len(images_bgr))]


def _to_outputs(
    found: ImageDetections, image: WorkflowImageData, prompts: list[str], limits: DetectionLimits
) -> dict[str, Any]:
    height, width = image.numpy_image.shape[:2]
    detections = select_detections(found, width, height, limits)
    per_prompt = np.bincount(detections.class_id, minlength=len(prompts))
    return {
        "predictions": to_engine(attach_workflow_data(detections, image, prompts)),
        "counts": dict(zip(prompts, per_prompt.tolist(), strict=True)),
    }
