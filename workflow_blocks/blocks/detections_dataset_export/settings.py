"""Which dataset the export block writes, and how: the types of its fields."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from workflow_blocks.blocks.common.manifest_fields import NUMBERS_ONLY, Fix, Flag
from workflow_blocks.blocks.common.names import DIFFERENT_NAMES, NORMALIZED, WITHOUT_REPEATS
from workflow_blocks.blocks.common.prompts import OTHER_CLASSES, Threshold, ThresholdsByClass
from workflow_blocks.datasets.class_names import check_class_name
from workflow_blocks.datasets.details import Detail
from workflow_blocks.datasets.errors import DatasetError
from workflow_blocks.datasets.formats import DatasetFormatName, SplitName

MAX_CLASS_NAME_LENGTH = 256
MAX_JPEG_QUALITY = 100

DatasetFormat = Annotated[DatasetFormatName, Fix("give 'coco', 'yolo' or 'pascal_voc'")]
Labels = Annotated[Literal["all", "sure", "review"], Fix("give 'all', 'sure' or 'review'")]
ImageFormat = Annotated[Literal["jpg", "png"], Fix("give 'jpg' or 'png'")]


def _check_printable(value: str) -> str:
    if not value.isprintable():
        raise ValueError("control characters")
    return value


def _check_sum(shares: dict[SplitName, float]) -> dict[SplitName, float]:
    if not sum(shares.values()) > 0:
        raise ValueError("no share")
    return shares


def _check_home(path: str) -> str:
    try:
        Path(path).expanduser()
    except RuntimeError as error:  # `~name` where there is no such user
        raise ValueError("no home folder") from error
    return path


def _check_writable(name: str) -> str:
    try:
        check_class_name(name)
    except DatasetError as error:
        raise ValueError(str(error)) from error
    return name


TargetDirectory = Annotated[
    str,
    StringConstraints(strict=True, min_length=1, pattern=r"\S"),
    AfterValidator(_check_printable),
    AfterValidator(_check_home),
    Fix("give the path of a folder"),
]
_Share = Annotated[float, Field(ge=0, allow_inf_nan=False), NUMBERS_ONLY]
Shares = Annotated[dict[SplitName, _Share], Field(min_length=1), AfterValidator(_check_sum)]
Split = Annotated[
    SplitName | Shares,
    Fix("give 'train', 'valid' or 'test', or the share of each, such as {\"train\": 0.8, \"valid\": 0.2}"),
]
# The same rule as for prompts, which are often the names.
ClassName = Annotated[
    str,
    StringConstraints(strict=True, min_length=1, max_length=MAX_CLASS_NAME_LENGTH, pattern=r"\S"),
    AfterValidator(_check_writable),
    NORMALIZED,
    Fix(
        f"give a list of names of 1 to {MAX_CLASS_NAME_LENGTH} characters, not all blank and without control "
        "characters, or a dictionary whose keys are such names"
    ),
]
ClassNames = Annotated[list[ClassName], Field(strict=True, min_length=1), WITHOUT_REPEATS]
# Classes with their prompts, as the detection block takes them; the keys are the names.
ClassesWithPrompts = Annotated[dict[ClassName, Any], Field(min_length=1), DIFFERENT_NAMES]
Caption = Annotated[str, Field(strict=True), Fix("give a text")]
ImageName = Annotated[str, Field(strict=True), Fix("give a file name such as 'photo.jpg'")]
JpegQuality = Annotated[
    int,
    Field(strict=True, ge=1, le=MAX_JPEG_QUALITY),
    Fix(f"give a whole number from 1 to {MAX_JPEG_QUALITY}"),
]
CooldownSeconds = Annotated[
    float,
    Field(ge=0, allow_inf_nan=False),
    NUMBERS_ONLY,
    Fix("give a number of seconds, 0 for no cooldown"),
]


class SinkSwitches(BaseModel):
    """The fields that say whether to write, and whether to wait for it."""

    model_config = ConfigDict(frozen=True)

    disable_sink: Flag
    fire_and_forget: Flag


class ExportSettings(BaseModel):
    """The fields that say where and how an image is written."""

    model_config = ConfigDict(frozen=True)

    target_directory: TargetDirectory
    format: DatasetFormat
    split: Split
    class_names: ClassName | ClassNames | ClassesWithPrompts | None
    image_format: ImageFormat
    jpeg_quality: JpegQuality
    include_images_without_detections: Flag
    cooldown_seconds: CooldownSeconds
    image_name: ImageName | None = None
    caption: Caption | None = None
    labels: Labels = "all"
    sure_confidence: Threshold | ThresholdsByClass = 0.5

    def is_wanted(self, names: Sequence[str], details: Sequence[Detail]) -> bool:
        """Whether an image belongs to the dataset by the scores of its boxes; unknown scores are not sure."""
        if self.labels == "all":
            return True
        scores = [detail.score for detail in details] or [None] * len(names)
        is_sure = all(
            score is not None and score >= self._threshold(name)
            for name, score in zip(names, scores, strict=True)
        )
        return is_sure == (self.labels == "sure")

    def _threshold(self, name: str) -> float:
        if not isinstance(self.sure_confidence, dict):
            return self.sure_confidence
        return self.sure_confidence.get(name, self.sure_confidence.get(OTHER_CLASSES, 0.0))

    @property
    def class_list(self) -> list[str] | None:
        if self.class_names is None:
            return None
        return [self.class_names] if isinstance(self.class_names, str) else list(self.class_names)


class DetectedNames(BaseModel):
    """The class names of detections, by the same rule as `class_names`."""

    predictions: list[ClassName]
