"""Which dataset the export block writes, and how: the types of its fields."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from workflow_blocks.blocks.common.manifest_fields import NUMBERS_ONLY, Fix, Flag
from workflow_blocks.blocks.common.prompts import normalised
from workflow_blocks.datasets.class_names import check_class_name
from workflow_blocks.datasets.errors import DatasetError
from workflow_blocks.datasets.formats import DatasetFormatName, SplitName

MAX_CLASS_NAME_LENGTH = 256
MAX_JPEG_QUALITY = 100

ImageFormat = Literal["jpg", "png"]


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


def _normalised(value: object) -> object:
    return normalised(value) if isinstance(value, str) else value


def _check_writable(name: str) -> str:
    try:
        check_class_name(name)
    except DatasetError as error:
        raise ValueError(str(error)) from error
    return name


def _without_repeats(names: list[str]) -> list[str]:
    return list(dict.fromkeys(names))


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
    BeforeValidator(_normalised),
    Fix(
        f"give a list of names of 1 to {MAX_CLASS_NAME_LENGTH} characters, not all blank and without control "
        "characters"
    ),
]
ClassNames = Annotated[list[ClassName], Field(strict=True, min_length=1), AfterValidator(_without_repeats)]
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
    format: DatasetFormatName
    split: Split
    class_names: ClassName | ClassNames | None
    image_format: ImageFormat
    jpeg_quality: JpegQuality
    include_images_without_detections: Flag
    cooldown_seconds: CooldownSeconds
    image_name: ImageName | None = None

    @property
    def class_list(self) -> list[str] | None:
        return [self.class_names] if isinstance(self.class_names, str) else self.class_names


class DetectedNames(BaseModel):
    """The class names of detections, by the same rule as `class_names`."""

    predictions: list[ClassName]
