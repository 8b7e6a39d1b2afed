"""Which dataset the export block writes, and how: the types of its fields."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from workflow_blocks.blocks.common.manifest_fields import NUMBERS_ONLY, Fix, Flag
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


def _check_distinct(names: list[str]) -> list[str]:
    if len(set(names)) < len(names):
        raise ValueError("repeats")
    return names


TargetDirectory = Annotated[
    str,
    StringConstraints(strict=True, min_length=1, pattern=r"\S"),
    AfterValidator(_check_printable),
    Fix("give the path of a folder"),
]
_Share = Annotated[float, Field(ge=0, allow_inf_nan=False), NUMBERS_ONLY]
Shares = Annotated[dict[SplitName, _Share], Field(min_length=1), AfterValidator(_check_sum)]
Split = Annotated[
    SplitName | Shares,
    Fix("give 'train', 'valid' or 'test', or the share of each, such as {\"train\": 0.8, \"valid\": 0.2}"),
]
_ClassName = Annotated[
    str, StringConstraints(strict=True, min_length=1, max_length=MAX_CLASS_NAME_LENGTH, pattern=r"\S")
]
ClassNames = Annotated[
    list[_ClassName],
    Field(strict=True, min_length=1, json_schema_extra={"uniqueItems": True}),
    AfterValidator(_check_distinct),
    Fix(f"give a list of different names of 1 to {MAX_CLASS_NAME_LENGTH} characters"),
]
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
    class_names: ClassNames | None
    image_format: ImageFormat
    jpeg_quality: JpegQuality
    include_images_without_detections: Flag
    cooldown_seconds: CooldownSeconds
