"""The block `workflow_blocks/moondream2@v1`."""

import logging
from collections.abc import Sequence
from typing import Any, Literal

from inference.core.workflows.execution_engine.entities.base import Batch, OutputDefinition, WorkflowImageData
from inference.core.workflows.execution_engine.entities.types import (
    BOOLEAN_KIND,
    CLASSIFICATION_PREDICTION_KIND,
    DICTIONARY_KIND,
    FLOAT_KIND,
    FLOAT_ZERO_TO_ONE_KIND,
    IMAGE_KIND,
    INFERENCE_ID_KIND,
    INSTANCE_SEGMENTATION_PREDICTION_KIND,
    INTEGER_KIND,
    KEYPOINT_DETECTION_PREDICTION_KIND,
    LABELED_POINTS_KIND,
    LANGUAGE_MODEL_OUTPUT_KIND,
    LIST_OF_VALUES_KIND,
    OBJECT_DETECTION_PREDICTION_KIND,
    ROBOFLOW_MODEL_ID_KIND,
    STRING_KIND,
    ImageInputField,
    Kind,
    Selector,
)
from inference.core.workflows.prototypes.block import (
    BlockResult,
    WorkflowBlockManifest,
)
from pydantic import ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from workflow_blocks.blocks.common.client_errors import (
    InvalidInputError,
    step_name,
)
from workflow_blocks.blocks.common.data_representation import from_engine
from workflow_blocks.blocks.common.detections import MAX_DETECTIONS, DetectionLimits, MaxDetections
from workflow_blocks.blocks.common.images import check_image, to_bgr_uint8, to_jpeg_base64
from workflow_blocks.blocks.common.kinds import KINDS_WITH_BOXES
from workflow_blocks.blocks.common.manifest_fields import (
    Flag,
    ZeroToOne,
    checked,
    explain_errors,
    has_selectors,
)
from workflow_blocks.blocks.common.model_block import Moondream2Block
from workflow_blocks.blocks.common.model_calls import Image, LoadedModel
from workflow_blocks.blocks.common.model_loading import load_model
from workflow_blocks.blocks.common.model_manifest import Moondream2Manifest
from workflow_blocks.blocks.common.model_version import RELEASED_MODEL, ModelVersion, check_model_version
from workflow_blocks.blocks.common.prompts import (
    MAX_PROMPTS,
    OTHER_CLASSES,
    LiteralPrompt,
    Prompt,
    PromptList,
    PromptsByClass,
    Threshold,
    ThresholdsByClass,
    check_thresholds,
    value_of_image,
)
from workflow_blocks.blocks.common.remote import remote_server
from workflow_blocks.blocks.common.remote_detection import check_not_forwarded
from workflow_blocks.blocks.moondream2.grounding import ClassIds, GroundedBoxes, grounded_boxes
from workflow_blocks.blocks.moondream2.local_run import LocalRun
from workflow_blocks.blocks.moondream2.outputs import LIKELY, to_outputs
from workflow_blocks.blocks.moondream2.questions import (
    MAX_QUESTION_LENGTH,
    MAX_QUESTIONS,
    MAX_TOKENS,
    Asked,
    MaxTokens,
    NamedQuestions,
    ParseAs,
    Question,
    QuestionList,
    Seed,
    Temperature,
    TextSettings,
    asked_of_images,
    parse_asked,
)
from workflow_blocks.blocks.moondream2.remote_run import RemoteRun
from workflow_blocks.blocks.moondream2.results import FoundPoints, ImageResult
from workflow_blocks.blocks.moondream2.tasks import (
    CLASS_PLACE,
    DEFAULT_TASK,
    GROUNDING,
    LOCATING,
    TASKS,
    TASKS_METADATA,
    TaskType,
    relevant_for,
)
from workflow_blocks.bundled_model import DEMO_MODEL, LOCAL_PACKAGES_SETTING

_LOGGER = logging.getLogger(__name__)

SHORT_DESCRIPTION = "Ask Moondream2 about images: questions, captions, classes, boxes and points."

_TASK_LIST = "\n".join(f"- `{name}`: {task.description}" for name, task in TASKS.items())

LONG_DESCRIPTION = f"""
Ask Moondream2 about images, or about each box that another block detected. Every answer comes with its
probability.

The tasks (`task_type`):

{_TASK_LIST}

## How This Block Works

The block:

1. Encodes each image once, and asks all its questions together
2. Writes answers and captions with the most likely words, so that the same input gives the same text, unless
   `temperature` is above 0
3. Reads answers as `parse_as` says. An answer that cannot be read so is empty, and sets `error_status`
4. Scores `classes` instead of writing: `classification` gives probabilities that add up to 1, and
   `multi-label-classification` the probability of "yes" against "no" for each class; those from {LIKELY} on
   are predicted
5. Asks every question about every box of `{GROUNDING}` in the grounded tasks, without cropping

The outputs:

- `predictions`: detections, key points or a classification, as the task has it; None for texts
- `output`: the answer or caption. It has the form of `prompt`: a list of questions gives a list, and a
  dictionary of named questions gives a dictionary. In the grounded tasks, a list with one of these for
  each box. In classification, the predicted class or list of classes
- `probability`: the probability of each text or class in `output`, in the same form
- `cut_short`: for each text, in the same form, whether it reached `max_tokens` before its end
- `classes`: the class names; `object-detection` gives those that the model named
- `counts`: the number of boxes or points of each class
- `points`: all points, for blocks that take labeled points
- `attributes`: in the grounded tasks, a dictionary for each detection with its `detection_id`, `answer` and
  `answer_probability`. Questions with names give `answer_<name>` and `answer_<name>_probability`, and
  questions in a list `answer_1` and so on. The data of the detections has them, too. In
  `open-vocabulary-object-detection`, the `prompt` that found each box
- `reasoning`: with `reasoning` on, what the model thought, and the points in the image that it looked at,
  in the form of `output`
- `error_status`: whether something could not be answered or read
- `inference_id`: identifies the run on the image

`model_version` selects the model: `{RELEASED_MODEL}` is the released Moondream2, the path of a **local model
package** runs the weights in it, and `{DEMO_MODEL}` is the small bundled model. A model must have been
made for the task.

## Example

This step asks two questions about each detected person. The predictions then have `answer_helmet` and
`answer_vest`.

```json
{{
  "type": "workflow_blocks/moondream2@v1",
  "name": "attributes",
  "images": "$inputs.image",
  "task_type": "detection-grounded-visual-question-answering",
  "grounding_detection": "$steps.detection.predictions",
  "prompt": {{"helmet": "Does the person wear a helmet?", "vest": "Does the person wear a vest?"}},
  "parse_as": "boolean",
  "model_version": "{RELEASED_MODEL}"
}}
```

## Common Use Cases

- **Attributes of Objects**: Ask about every detected object without cropping it and without another model
- **Gates**: Continue a workflow only if the answer to a question is yes, with a threshold for its probability
- **Tagging**: Caption and classify images for a search or a dataset
- **Unknown Scenes**: Find everything in an image without naming it first
- **Counting**: Count small or touching objects by points

## Connecting to Other Blocks

- **After detection blocks** to ask about each box
- **After Dynamic Crop or Image Slicer** to ask about parts of an image
- **Before Moondream2 Prompt Detection**: answers that are read as lists are prompts
- **Before Continue If or Property Definition** to decide by an answer or a class
- **Before visualization blocks** (e.g., Label or Keypoint Visualization) to draw classes, answers and points

## Requirements

- Local model packages and `{DEMO_MODEL}` need `{LOCAL_PACKAGES_SETTING}=True` on the server
- `{RELEASED_MODEL}` needs about 4 GB of weights, and is slow without a GPU
- Inference's own model class (`MOONDREAM2_RUNTIME=inference`) has no probabilities; this block needs
  this plugin's
- With `MOONDREAM2_API_URL` set on the server, or with remote execution, another Inference server runs the
  model. Without this plugin, it can do `open-vocabulary-object-detection` only
"""

_Kinds = Sequence[Kind]
_PREDICTIONS = [
    OBJECT_DETECTION_PREDICTION_KIND,
    INSTANCE_SEGMENTATION_PREDICTION_KIND,
    KEYPOINT_DETECTION_PREDICTION_KIND,
    CLASSIFICATION_PREDICTION_KIND,
]


def _outputs(predictions: _Kinds) -> list[OutputDefinition]:
    """The outputs of the block, where `predictions` has these kinds."""
    text = [
        STRING_KIND,
        LANGUAGE_MODEL_OUTPUT_KIND,
        LIST_OF_VALUES_KIND,
        DICTIONARY_KIND,
        BOOLEAN_KIND,
        INTEGER_KIND,
        FLOAT_KIND,
    ]
    return [
        OutputDefinition(name="predictions", kind=list(predictions)),
        OutputDefinition(name="output", kind=text),
        OutputDefinition(
            name="probability",
            kind=[FLOAT_ZERO_TO_ONE_KIND, FLOAT_KIND, LIST_OF_VALUES_KIND, DICTIONARY_KIND],
        ),
        OutputDefinition(name="cut_short", kind=[BOOLEAN_KIND, LIST_OF_VALUES_KIND, DICTIONARY_KIND]),
        OutputDefinition(name="classes", kind=[LIST_OF_VALUES_KIND]),
        OutputDefinition(name="counts", kind=[DICTIONARY_KIND]),
        OutputDefinition(name="points", kind=[LABELED_POINTS_KIND, LIST_OF_VALUES_KIND]),
        OutputDefinition(name="attributes", kind=[LIST_OF_VALUES_KIND]),
        OutputDefinition(name="reasoning", kind=[DICTIONARY_KIND, LIST_OF_VALUES_KIND]),
        OutputDefinition(name="error_status", kind=[BOOLEAN_KIND]),
        OutputDefinition(name="inference_id", kind=[INFERENCE_ID_KIND]),
    ]


class BlockManifest(Moondream2Manifest):
    model_config = ConfigDict(
        json_schema_extra={
            "name": "Moondream2",
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
                "LMM",
                "visual question answering",
                "caption",
                "classification",
                "pointing",
            ],
            "is_vlm_block": True,
            "task_type_property": "task_type",
            "ui_manifest": {"section": "model", "icon": "fal fa-moon", "blockPriority": 5.4},
        },
        protected_namespaces=(),
    )
    type: Literal["workflow_blocks/moondream2@v1"]
    images: Selector(kind=[IMAGE_KIND]) = ImageInputField
    task_type: TaskType = Field(
        default=DEFAULT_TASK,
        description="What to do. The task decides which fields are read, and the kind of `predictions`.",
        examples=[DEFAULT_TASK, "classification"],
        json_schema_extra={"values_metadata": TASKS_METADATA, "always_visible": True},
    )
    prompt: (
        Selector(kind=[STRING_KIND, LIST_OF_VALUES_KIND, DICTIONARY_KIND])
        | Question
        | QuestionList[Selector(kind=[STRING_KIND]) | Question]
        | NamedQuestions[Selector(kind=[STRING_KIND]) | Question]
        | None
    ) = Field(
        default=None,
        description="The question, a list of questions, or a dictionary of names with a question each (the "
        f"same for all images, or one value for each image); at most {MAX_QUESTIONS} "
        f"of {MAX_QUESTION_LENGTH} characters. Classification and detection have a question of "
        f"their own; for several labels, "
        f"{CLASS_PLACE} in the question stands for the class.",
        examples=[
            "What colour is the car?",
            ["How many people are there?", "Is it raining?"],
            {"weather": "What is the weather like?"},
            "$inputs.prompt",
        ],
        json_schema_extra={"multiline": True, **relevant_for("prompt")},
    )
    classes: (
        Selector(kind=[STRING_KIND, LIST_OF_VALUES_KIND, DICTIONARY_KIND])
        | Prompt
        | PromptList[Selector(kind=[STRING_KIND]) | Prompt]
        | PromptsByClass[
            Selector(kind=[STRING_KIND, LIST_OF_VALUES_KIND]) | Prompt | PromptList[LiteralPrompt]
        ]
        | None
    ) = Field(
        default=None,
        description="The classes to choose from, or what to detect or point at (the same for all images, or "
        f"one value for each image). At most {MAX_PROMPTS} different ones; repeats count once. For object "
        "detection and pointing also a dictionary of class names with a prompt or a list of prompts each.",
        examples=[
            ["yes", "no"],
            ["person", "car"],
            {"helmet": ["hard hat", "safety helmet"], "person": "person"},
            "$inputs.classes",
        ],
        json_schema_extra=relevant_for("classes"),
    )
    grounding_detection: Selector(kind=KINDS_WITH_BOXES) | None = Field(
        default=None,
        title="Detections",
        description="The detections whose boxes are asked about, from any block, on the same images.",
        examples=["$steps.detection.predictions"],
        json_schema_extra=relevant_for(GROUNDING),
    )
    model_version: Selector(kind=[ROBOFLOW_MODEL_ID_KIND, STRING_KIND]) | ModelVersion = Field(
        default=RELEASED_MODEL,
        title="Model",
        description=f"The Moondream2 to run: the released one ({RELEASED_MODEL}), the path of a local model "
        f"package, or {DEMO_MODEL}, the small bundled model.",
        examples=[RELEASED_MODEL, DEMO_MODEL, "$inputs.model_version"],
        json_schema_extra={"always_visible": True},
    )
    parse_as: ParseAs | Selector(kind=[STRING_KIND]) = Field(
        default="text",
        description="How answers are read. What cannot be read so is empty (an empty list, or None) and "
        "sets `error_status`.",
        examples=["list", "$inputs.parse_as"],
        json_schema_extra={
            "values_metadata": {
                "text": {"name": "Text", "description": "The answer as it is"},
                "list": {
                    "name": "List",
                    "description": "'a dog, a cat and a ball' gives ['dog', 'cat', 'ball']",
                },
                "number": {"name": "Number", "description": "'3' and 'three' give 3"},
                "boolean": {"name": "Boolean", "description": "'yes' and 'true' give true"},
            },
            **relevant_for("parse_as"),
        },
    )
    replace_class: Flag | Selector(kind=[BOOLEAN_KIND]) = Field(
        default=False,
        description="Whether the answer becomes the class of its detection. It takes a single question. "
        "Without an answer, the class name stays.",
        examples=[True, "$inputs.replace_class"],
        json_schema_extra=relevant_for("replace_class"),
    )
    reasoning: Flag | Selector(kind=[BOOLEAN_KIND]) = Field(
        default=False,
        description="Whether the model thinks before it answers; its thoughts are in the output `reasoning`.",
        examples=[True, "$inputs.reasoning"],
        json_schema_extra=relevant_for("reasoning"),
    )
    max_tokens: MaxTokens | Selector(kind=[INTEGER_KIND]) = Field(
        default=500,
        title="Max Tokens",
        description=f"The most tokens of a text, 1 to {MAX_TOKENS}. Texts that reach it are cut short; other "
        "values than texts are not read from them.",
        examples=[100, "$inputs.max_tokens"],
        json_schema_extra=relevant_for("max_tokens"),
    )
    temperature: Temperature | Selector(kind=[FLOAT_KIND, FLOAT_ZERO_TO_ONE_KIND]) = Field(
        default=0.0,
        description="0 writes the most likely text. Above 0, up to 2, words are drawn at random.",
        examples=[0.5, "$inputs.temperature"],
        json_schema_extra=relevant_for("temperature"),
    )
    seed: Seed | Selector(kind=[INTEGER_KIND]) = Field(
        default=0,
        description="Of the random draws; the same seed gives the same text.",
        examples=[1, "$inputs.seed"],
        json_schema_extra=relevant_for("seed"),
    )
    confidence: Threshold | ThresholdsByClass | Selector(kind=[FLOAT_ZERO_TO_ONE_KIND, DICTIONARY_KIND]) = (
        Field(
            default=0.0,
            title="Confidence Threshold",
            description="Boxes with a lower confidence are dropped, 0 to 1: one number, or a dictionary of "
            f"class names with a number each. There, '{OTHER_CLASSES}' stands for all other classes; without "
            "it, their threshold is 0.",
            examples=[0.5, {"person": 0.4, OTHER_CLASSES: 0.2}, "$inputs.confidence"],
            json_schema_extra=relevant_for("confidence"),
        )
    )
    max_detections: MaxDetections | Selector(kind=[INTEGER_KIND]) = Field(
        default=MAX_DETECTIONS,
        title="Max Detections per Class",
        description=f"The most boxes to return for each class, 1 to {MAX_DETECTIONS}.",
        examples=[10, "$inputs.max_detections"],
        json_schema_extra=relevant_for("max_detections"),
    )
    iou_threshold: ZeroToOne | Selector(kind=[FLOAT_ZERO_TO_ONE_KIND]) = Field(
        default=0.5,
        title="IoU Threshold",
        description="Two boxes that overlap more than this (intersection over union, 0 to 1) count as one "
        "object, and the more confident box stays. 1 keeps all boxes.",
        examples=[0.5, "$inputs.iou_threshold"],
        json_schema_extra=relevant_for("iou_threshold"),
    )
    class_agnostic_nms: Flag | Selector(kind=[BOOLEAN_KIND]) = Field(
        default=False,
        title="Class-Agnostic NMS",
        description="Whether boxes of different classes also count as one object when they overlap.",
        examples=[True, "$inputs.class_agnostic_nms"],
        json_schema_extra=relevant_for("class_agnostic_nms"),
    )

    _explain_errors = field_validator(
        "images",
        "task_type",
        "prompt",
        "classes",
        "grounding_detection",
        "model_version",
        "parse_as",
        "replace_class",
        "reasoning",
        "max_tokens",
        "temperature",
        "seed",
        "confidence",
        "max_detections",
        "iou_threshold",
        "class_agnostic_nms",
        mode="wrap",
    )(explain_errors)

    @model_validator(mode="after")
    def _fits_the_task(self) -> "BlockManifest":
        """Refuses what the task cannot do without, where it is literal, and logs what it does not read."""
        task = TASKS[self.task_type]
        try:
            if GROUNDING in task.required and self.grounding_detection is None:
                raise InvalidInputError(_no_detections(self.task_type))
            if not has_selectors(self.prompt) and not has_selectors(self.classes):
                asked = parse_asked(self.task_type, self.prompt, self.classes)
                if "classes" in task.fields and "confidence" in task.fields:
                    check_thresholds(self.confidence, asked.classes, "classes")
                if self.replace_class is True:
                    _check_replaces_with_one(self.task_type, asked, self.parse_as)
        except InvalidInputError as error:
            raise PydanticCustomError("invalid_input", "{problem}", {"problem": str(error)}) from error
        unused = [
            name
            for name, field in type(self).model_fields.items()
            if _is_of_some_task(name) and name not in task.fields and getattr(self, name) != field.default
        ]
        if unused:
            _LOGGER.warning(
                "Step %r: the task %r does not read %s", self.name, self.task_type, ", ".join(unused)
            )
        return self

    @classmethod
    def get_parameters_accepting_batches(cls) -> list[str]:
        return ["images"]

    @classmethod
    def get_parameters_accepting_batches_and_scalars(cls) -> list[str]:
        return ["prompt", "classes", GROUNDING]

    @classmethod
    def describe_outputs(cls) -> list[OutputDefinition]:
        return _outputs(_PREDICTIONS)

    def get_actual_outputs(self) -> list[OutputDefinition]:
        return _outputs(TASKS[self.task_type].kinds or _PREDICTIONS)

    @classmethod
    def get_execution_engine_compatibility(cls) -> str | None:
        return ">=1.3.0,<2.0.0"


def _is_of_some_task(field: str) -> bool:
    return any(field in task.fields for task in TASKS.values())


def _no_points(task_type: str) -> FoundPoints | None:
    return FoundPoints.none() if task_type == "pointing" else None


def _no_detections(task_type: str) -> str:
    return f"`{GROUNDING}` is empty; give the detections of a step, because the task {task_type!r} needs them"


def _check_replaces_with_one(task_type: str, asked: Asked, parse_as: str) -> None:
    if "replace_class" not in TASKS[task_type].fields:
        return
    if asked.suffixes != [""]:
        raise InvalidInputError(
            "`replace_class` is true and `prompt` holds several questions; give one question, whose answer "
            "becomes the class"
        )
    if parse_as == "list":
        raise InvalidInputError(
            "`replace_class` is true and `parse_as` is 'list', and a class has one name; give another form"
        )


class Moondream2BlockV1(Moondream2Block):
    """Runs a task of Moondream2 on batches of images."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._class_ids = ClassIds()

    @classmethod
    def get_manifest(cls) -> type[WorkflowBlockManifest]:
        return BlockManifest

    def run(
        self,
        images: Batch[WorkflowImageData],
        task_type: str,
        prompt: Any,
        classes: Any,
        grounding_detection: Any,
        model_version: str,
        parse_as: str,
        replace_class: bool,
        reasoning: bool,
        max_tokens: int,
        temperature: float,
        seed: int,
        confidence: float | dict[str, float],
        max_detections: int,
        iou_threshold: float,
        class_agnostic_nms: bool,
    ) -> BlockResult:
        with self._client_errors():
            settings = checked(
                TextSettings,
                parse_as=parse_as,
                reasoning=reasoning,
                max_tokens=max_tokens,
                temperature=temperature,
                seed=seed,
                replace_class=replace_class,
            ).read_by(task_type)
            limits = checked(
                DetectionLimits,
                confidence=confidence,
                max_detections=max_detections,
                iou_threshold=iou_threshold,
                class_agnostic_nms=class_agnostic_nms,
            )
            asked = asked_of_images(task_type, prompt, classes, len(images))
            if settings.replace_class:
                for of_image in asked:
                    _check_replaces_with_one(task_type, of_image, settings.parse_as)
            arrays = [to_bgr_uint8(check_image(image).numpy_image) for image in images]
            grounded = self._grounded_boxes(task_type, grounding_detection, arrays)
            server = remote_server(self._step_execution_mode, self._api_key)
            boxes = [[] if of_image is None else of_image.boxes for of_image in grounded]
            if all(of_image is not None and not of_image.boxes for of_image in grounded):
                results = [ImageResult()] * len(images)
            elif task_type in LOCATING and not any(of_image.classes for of_image in asked):
                results = [ImageResult(points=_no_points(task_type))] * len(images)
            elif server is not None:
                check_not_forwarded(step_name(self))
                remote_run = RemoteRun(server, task_type, settings, check_model_version(model_version))
                sizes = [array.shape[:2] for array in arrays]
                results = remote_run([to_jpeg_base64(image) for image in images], asked, boxes, sizes)
            else:
                model_id = load_model(self._model_manager, model_version, self._api_key)
                run = LocalRun(LoadedModel(self._model_manager, model_id), task_type, settings)
                results = run(arrays, asked, boxes)
        return [
            to_outputs(task_type, result, image, of_image, of_boxes, limits, settings, self._class_ids)
            for result, image, of_image, of_boxes in zip(results, images, asked, grounded, strict=True)
        ]

    def _grounded_boxes(
        self, task_type: str, grounding_detection: Any, arrays: Sequence[Image]
    ) -> list[GroundedBoxes | None]:
        """The boxes of each image to ask about; None where the task does not ask about boxes."""
        if GROUNDING not in TASKS[task_type].required:
            return [None] * len(arrays)
        if grounding_detection is None:
            raise InvalidInputError(_no_detections(task_type))
        result: list[GroundedBoxes | None] = []
        for index, array in enumerate(arrays):
            detections = from_engine(
                value_of_image(grounding_detection, index), self.__class__.__name__, GROUNDING
            )
            result.append(grounded_boxes(detections, width=array.shape[1], height=array.shape[0]))
        return result
