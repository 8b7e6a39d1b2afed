"""What the block can do, task by task: names, the fields that each task reads, and what it predicts."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

from inference.core.workflows.execution_engine.entities.types import (
    CLASSIFICATION_PREDICTION_KIND,
    INSTANCE_SEGMENTATION_PREDICTION_KIND,
    KEYPOINT_DETECTION_PREDICTION_KIND,
    OBJECT_DETECTION_PREDICTION_KIND,
    Kind,
)

TaskType = Literal[
    "visual-question-answering",
    "unconstrained",
    "caption",
    "detailed-caption",
    "more-detailed-caption",
    "classification",
    "multi-label-classification",
    "object-detection",
    "open-vocabulary-object-detection",
    "detection-grounded-classification",
    "detection-grounded-visual-question-answering",
    "pointing",
]

# The field with the boxes to ask about.
GROUNDING = "grounding_detection"
# Tasks whose classes are prompts, or have prompts.
LOCATING = ("open-vocabulary-object-detection", "pointing")
# The class name stands here in the question of a multi-label classification.
CLASS_PLACE = "{class}"
_LIMITS = ("confidence", "max_detections", "iou_threshold", "class_agnostic_nms")
_SAMPLING = ("max_tokens", "temperature", "seed")
_TEXT = ("parse_as", "reasoning", *_SAMPLING)
# Boxes keep their masks or key points.
_GROUNDED = (
    OBJECT_DETECTION_PREDICTION_KIND,
    INSTANCE_SEGMENTATION_PREDICTION_KIND,
    KEYPOINT_DETECTION_PREDICTION_KIND,
)


@dataclass(frozen=True)
class Task:
    """A task as an editor shows it.

    Attributes:
        name: its title.
        description: one sentence.
        required: fields that it cannot do without.
        optional: further fields that it reads.
        kinds: of its `predictions`; none if it predicts nothing.
        takes_many: whether `prompt` may be several questions.
        caption_length: Moondream2's name of the caption's length.
    """

    name: str
    description: str
    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    kinds: tuple[Kind, ...] = ()
    takes_many: bool = False
    caption_length: str | None = None

    @property
    def fields(self) -> tuple[str, ...]:
        return self.required + self.optional


TASKS: dict[str, Task] = {
    "visual-question-answering": Task(
        "Visual Question Answering",
        "Model answers one or many questions about the image",
        required=("prompt",),
        optional=_TEXT,
        takes_many=True,
    ),
    "unconstrained": Task(
        "Open Prompt",
        "The same as Visual Question Answering",
        required=("prompt",),
        optional=_TEXT,
        takes_many=True,
    ),
    "caption": Task(
        "Captioning (short)",
        "Model writes a short caption",
        optional=_SAMPLING,
        caption_length="short",
    ),
    "detailed-caption": Task(
        "Captioning",
        "Model writes a caption of one or two sentences",
        optional=_SAMPLING,
        caption_length="normal",
    ),
    "more-detailed-caption": Task(
        "Captioning (long)",
        "Model writes a long description",
        optional=_SAMPLING,
        caption_length="long",
    ),
    "classification": Task(
        "Single-Label Classification",
        "Model gives each of the classes a probability; together they are 1",
        required=("classes",),
        optional=("prompt",),
        kinds=(CLASSIFICATION_PREDICTION_KIND,),
    ),
    "multi-label-classification": Task(
        "Multi-Label Classification",
        "Model gives each of the classes a probability of its own",
        required=("classes",),
        optional=("prompt",),
        kinds=(CLASSIFICATION_PREDICTION_KIND,),
    ),
    "object-detection": Task(
        "Unprompted Object Detection",
        "Model says what is in the image, and detects it",
        optional=("prompt", *_LIMITS, *_SAMPLING),
        kinds=(OBJECT_DETECTION_PREDICTION_KIND,),
    ),
    "open-vocabulary-object-detection": Task(
        "Object Detection",
        "Model detects the given classes",
        required=("classes",),
        optional=_LIMITS,
        kinds=(OBJECT_DETECTION_PREDICTION_KIND,),
    ),
    "detection-grounded-classification": Task(
        "Classification of Bounding Boxes",
        "Model gives every detection of another block one of the classes",
        required=(GROUNDING, "classes"),
        optional=("prompt", "replace_class"),
        kinds=_GROUNDED,
    ),
    "detection-grounded-visual-question-answering": Task(
        "Visual Question Answering about Bounding Boxes",
        "Model answers one or many questions about every detection of another block",
        required=(GROUNDING, "prompt"),
        optional=("replace_class", *_TEXT),
        kinds=_GROUNDED,
        takes_many=True,
    ),
    "pointing": Task(
        "Pointing",
        "Model points at each object of the given classes",
        required=("classes",),
        kinds=(KEYPOINT_DETECTION_PREDICTION_KIND,),
    ),
}
assert tuple(TASKS) == get_args(TaskType)

DEFAULT_TASK: TaskType = "visual-question-answering"
TASKS_METADATA: dict[str, Any] = {
    name: {"name": task.name, "description": task.description} for name, task in TASKS.items()
}


def relevant_for(field: str) -> dict[str, Any]:
    """The schema's note on the tasks that read a field."""
    values = [name for name, task in TASKS.items() if field in task.fields]
    is_required = all(field in TASKS[name].required for name in values)
    return {"relevant_for": {"task_type": {"values": values, "required": is_required}}}
