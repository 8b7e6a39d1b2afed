"""What a dataset knows of a box besides its class: score, prompt, attributes and mask."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import supervision as sv
from supervision.detection.utils.converters import mask_to_rle
from supervision.detection.utils.masks import contains_holes

# Corners x, y, x, y, ... in pixels.
Polygon = tuple[float, ...]


@dataclass(frozen=True)
class Detail:
    """Of one box. What is not known is empty.

    `attributes` are further values by name, as in JSON. `polygons` are the outlines of a mask, and `area` its
    pixels; `runs` are its run lengths, column by column and first of pixels outside, where outlines alone
    would lose its holes.
    """

    score: float | None = None
    prompt: str = ""
    polygons: tuple[Polygon, ...] = ()
    runs: tuple[int, ...] = ()
    area: int = 0
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return {
            name: value for name, value in asdict(self).items() if value or (value == 0.0 and name == "score")
        }


def detail_from_json(document: Mapping[str, Any]) -> Detail:
    """The inverse of `Detail.as_json`. Raises TypeError or ValueError if the document is something else."""
    return Detail(
        score=document.get("score"),
        prompt=str(document.get("prompt", "")),
        polygons=tuple(tuple(map(float, polygon)) for polygon in document.get("polygons", ())),
        runs=tuple(map(int, document.get("runs", ()))),
        area=int(document.get("area", 0)),
        attributes=dict(document.get("attributes", {})),
    )


def with_mask(detail: Detail, mask: npt.NDArray[np.bool_]) -> Detail:
    """The details of a box with a mask (H, W) over the whole image; without pixels, it is no mask."""
    outlines = [outline for outline in sv.mask_to_polygons(mask) if len(outline) > 2]
    if not outlines:
        return detail
    return replace(
        detail,
        polygons=tuple(tuple(outline.astype(float).flatten().tolist()) for outline in outlines),
        runs=tuple(mask_to_rle(mask)) if contains_holes(mask) else (),
        area=int(np.count_nonzero(mask)),
    )


def joined_outline(polygons: Sequence[Polygon]) -> Iterator[float]:
    """One outline around all polygons, for files that hold one: lines without width join them."""
    for polygon in polygons:
        yield from polygon
        if len(polygons) > 1:
            yield from polygon[:2]
    for polygon in polygons[-2::-1]:
        yield from polygon[:2]
