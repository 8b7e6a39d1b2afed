"""The block `workflow_blocks/moondream2_prompt_detection@v1`."""

from typing import Any, Literal

import numpy as np
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
    WorkflowBlockManifest,
)
from pydantic import ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from workflow_blocks.blocks.common.attributes import attributes_of
from workflow_blocks.blocks.common.client_errors import (
    InvalidInputError,
    step_name,
)
from workflow_blocks.blocks.common.data_representation import to_engine
from workflow_blocks.blocks.common.detections import (
    MAX_DETECTIONS,
    PROMPT_KEY,
    DetectionLimits,
    ImageDetections,
    MaxDetections,
    attach_workflow_data,
    select_detections,
)
from workflow_blocks.blocks.common.images import check_image, to_bgr_uint8, to_jpeg_base64
from workflow_blocks.blocks.common.manifest_fields import (
    Flag,
    ZeroToOne,
    checked,
    explain_errors,
    has_selectors,
)
from workflow_blocks.blocks.common.model_block import Moondream2Block
from workflow_blocks.blocks.common.model_calls import LoadedModel, detect
from workflow_blocks.blocks.common.model_loading import load_model
from workflow_blocks.blocks.common.model_manifest import Moondream2Manifest
from workflow_blocks.blocks.common.model_version import (
    RELEASED_MODEL,
    ModelVersion,
    check_model_version,
)
from workflow_blocks.blocks.common.prompts import (
    MAX_PROMPTS,
    OTHER_CLASSES,
    LiteralPrompt,
    Prompt,
    PromptClasses,
    PromptList,
    PromptsByClass,
    Threshold,
    ThresholdsByClass,
    check_thresholds,
    parse_prompts,
    prompts_of_images,
)
from workflow_blocks.blocks.common.remote import remote_server
from workflow_blocks.blocks.common.remote_detection import (
    check_not_forwarded,
    detect_remotely,
)
from workflow_blocks.bundled_model import DEMO_MODEL, LOCAL_PACKAGES_SETTING
from workflow_blocks.prompt_text import MAX_PROMPT_LENGTH

SHORT_DESCRIPTION = "Detect objects by naming them, with Moondream2."

LONG_DESCRIPTION = f"""
Detect objects by naming them. Give an image and one or more prompts, such as "red car" or "person with a
helmet", and get an object detection prediction with a box for each object found. No training and no fixed
list of classes are needed.

## How This Block Works

The block:

1. Takes one prompt, a list of prompts, or a dictionary of classes with one or several prompts each, either
   the same for all images or different for each image. A string is one prompt; commas do not split it
2. Runs Moondream2 for all images and all their prompts
3. Makes each prompt of a list a class: its text is the class name, and its place is the class id. In a
   dictionary, the keys are the classes, and the boxes of all prompts of a class belong to it
4. Clips boxes to the image and drops boxes outside it
5. Drops boxes below `confidence`, which is one number or one for each class, removes duplicates within a
   class by non-maximum suppression (`iou_threshold`, `class_agnostic_nms`), and keeps the `max_detections`
   most confident boxes of each class
6. Returns `predictions`, the object detection prediction; `counts`, a dictionary with the number of boxes of
   each class, including zeros; and `attributes`, a list with the prompt that found each box

`model_version` selects the model:

- `{RELEASED_MODEL}` is the released Moondream2, which Inference downloads
- The path of a **local model package** runs the weights in it. `moondream2` and `moondream2/...` are always
  model ids: write a folder of that name as `./moondream2`, or with its absolute path
- `{DEMO_MODEL}` is a small model that comes with this plugin and runs on any CPU. It knows only things
  as icon sets draw them, such as "lion" or "car", and coloured shapes

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

With `"prompts": {{"helmet": ["hard hat", "safety helmet"], "person": "person"}}`, the classes are `helmet`
and `person`, and `"confidence": {{"helmet": 0.4, "{OTHER_CLASSES}": 0.2}}` gives each its own threshold.

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


class BlockManifest(Moondream2Manifest):
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
        Selector(kind=[STRING_KIND, LIST_OF_VALUES_KIND, DICTIONARY_KIND])
        | Prompt
        | PromptList[Selector(kind=[STRING_KIND]) | Prompt]
        | PromptsByClass[
            Selector(kind=[STRING_KIND, LIST_OF_VALUES_KIND]) | Prompt | PromptList[LiteralPrompt]
        ]
    ) = Field(
        title="Prompts",
        description="What to find: one prompt, a list of prompts, a dictionary of class names with a prompt "
        "or a list of prompts each, or a selector to any of these (the same for all images, or one value for "
        "each image). A string is one prompt; commas do not split it. Blanks around a prompt are removed, "
        f"and several between words become one space. At most {MAX_PROMPTS} different prompts of "
        f"{MAX_PROMPT_LENGTH} characters.",
        examples=[
            "red car",
            ["person", "person with a helmet"],
            {"helmet": ["hard hat", "safety helmet"], "person": "person"},
            "$inputs.prompts",
        ],
    )
    model_version: Selector(kind=[ROBOFLOW_MODEL_ID_KIND, STRING_KIND]) | ModelVersion = Field(
        default=RELEASED_MODEL,
        title="Model",
        description=f"The Moondream2 to run: the released one ({RELEASED_MODEL}), the path of a local model "
        f"package, or {DEMO_MODEL}, the small bundled model that knows drawings of everyday things.",
        examples=[RELEASED_MODEL, DEMO_MODEL, "$inputs.model_version"],
        json_schema_extra={"always_visible": True},
    )
    confidence: Threshold | ThresholdsByClass | Selector(kind=[FLOAT_ZERO_TO_ONE_KIND, DICTIONARY_KIND]) = (
        Field(
            default=0.0,
            title="Confidence Threshold",
            description="Boxes with a lower confidence are dropped, 0 to 1: one number, or a dictionary of "
            f"class names with a number each. There, '{OTHER_CLASSES}' stands for all other classes; without "
            "it, their threshold is 0.",
            examples=[0.5, {"red car": 0.4, OTHER_CLASSES: 0.2}, "$inputs.confidence"],
            json_schema_extra={"always_visible": True},
        )
    )
    max_detections: MaxDetections | Selector(kind=[INTEGER_KIND]) = Field(
        default=MAX_DETECTIONS,
        title="Max Detections per Class",
        description=f"The most boxes to return for each class, 1 to {MAX_DETECTIONS}: the most confident of "
        "those that pass the other limits.",
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
        description="Whether boxes of different classes also count as one object when they overlap.",
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

    @model_validator(mode="after")
    def _thresholds_are_of_classes(self) -> "BlockManifest":
        """Finds misspelt classes where all is literal; at run time other images may have other classes."""
        if not has_selectors(self.prompts):
            try:
                check_thresholds(self.confidence, parse_prompts(self.prompts).names, "prompts")
            except InvalidInputError as error:
                raise PydanticCustomError("invalid_input", "{problem}", {"problem": str(error)}) from error
        return self

    @classmethod
    def get_parameters_accepting_batches(cls) -> list[str]:
        return ["images", "prompts"]

    @classmethod
    def describe_outputs(cls) -> list[OutputDefinition]:
        return [
            OutputDefinition(name="predictions", kind=[OBJECT_DETECTION_PREDICTION_KIND]),
            OutputDefinition(name="counts", kind=[DICTIONARY_KIND]),
            OutputDefinition(name="attributes", kind=[LIST_OF_VALUES_KIND]),
        ]

    @classmethod
    def get_execution_engine_compatibility(cls) -> str | None:
        return ">=1.3.0,<2.0.0"


class Moondream2PromptDetectionBlockV1(Moondream2Block):
    """Finds the objects that prompts name, in batches of images."""

    @classmethod
    def get_manifest(cls) -> type[WorkflowBlockManifest]:
        return BlockManifest

    def run(
        self,
        images: Batch[WorkflowImageData],
        prompts: Batch[Any] | list[Batch[str] | str] | dict[str, Any],
        model_version: str,
        confidence: float | dict[str, float],
        max_detections: int,
        iou_threshold: float,
        class_agnostic_nms: bool,
    ) -> BlockResult:
        with self._client_errors():
            limits = checked(
                DetectionLimits,
                confidence=confidence,
                max_detections=max_detections,
                iou_threshold=iou_threshold,
                class_agnostic_nms=class_agnostic_nms,
            )
            classes_by_image = prompts_of_images(prompts, len(images))
            prompts_by_image = [classes.prompts for classes in classes_by_image]
            for image in images:
                check_image(image)
            server = remote_server(self._step_execution_mode, self._api_key)
            if not any(prompts_by_image):
                found = [ImageDetections.none()] * len(images)
            elif server is None:
                arrays = [to_bgr_uint8(image.numpy_image) for image in images]
                model_id = load_model(self._model_manager, model_version, self._api_key)
                found = detect(LoadedModel(self._model_manager, model_id), arrays, prompts_by_image)
            else:
                check_not_forwarded(step_name(self))
                encoded = [to_jpeg_base64(image) for image in images]
                model = check_model_version(model_version)
                found = detect_remotely(server, encoded, prompts_by_image, model)
        return [
            _to_outputs(detections, image, classes, limits)
            for detections, image, classes in zip(found, images, classes_by_image, strict=True)
        ]


def _to_outputs(
    found: ImageDetections, image: WorkflowImageData, classes: PromptClasses, limits: DetectionLimits
) -> dict[str, Any]:
    height, width = image.numpy_image.shape[:2]
    detections = select_detections(found, classes, width, height, limits)
    per_class = np.bincount(detections.class_id, minlength=len(classes.names))
    detections = attach_workflow_data(detections, image, classes.names)
    return {
        "predictions": to_engine(detections),
        "counts": dict(zip(classes.names, per_class.tolist(), strict=True)),
        "attributes": attributes_of(detections, [PROMPT_KEY]),
    }
