"""Images with their true boxes, as a labelled dataset gives them, and what is wrong in its files."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from workflow_blocks.image_files import FORMATS, ImageFileError, read_image_file
from workflow_blocks.prompt_text import name_problem, normalized_prompt

# EXIF orientations that swap width and height.
_TURNED = (5, 6, 7, 8)
_ORIENTATION = 0x0112
# Labels are rounded, so boxes end a little outside of their image in many datasets.
_TOLERANCE = 1.0


@dataclass(frozen=True)
class Problem:
    """Something in a dataset's file that is left out or changed; `place` is a line or an entry of it."""

    file: Path
    place: str
    text: str

    def __str__(self) -> str:
        return ", ".join(filter(None, [str(self.file), self.place])) + f": {self.text}"


@dataclass(frozen=True)
class LabelledImage:
    """An image file and its true boxes: (N, 4) corners in its pixels, class ids (N,), crowds (N,)."""

    path: Path
    width: int
    height: int
    boxes: npt.NDArray[np.float64]
    class_ids: npt.NDArray[np.int64]
    is_crowd: npt.NDArray[np.bool_]


@dataclass
class LabelledImages:
    """The images of one split of a dataset; `source` names both. Class ids index `class_names`."""

    class_names: list[str]
    images: list[LabelledImage] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    source: str = ""

    def note(self, file: Path, place: str, text: str) -> None:
        self.problems.append(Problem(file, place, text))


@dataclass(frozen=True)
class Label:
    """A box of a label file, at a place of this file; corners in pixels."""

    place: str
    box: tuple[float, float, float, float]
    class_id: int
    is_crowd: bool = False


def add_image(
    dataset: LabelledImages, path: Path, size: tuple[int, int], labels: Sequence[Label], labels_file: Path
) -> None:
    """Adds an image. Boxes are clipped to it, and those without an area in it are left out and noted."""
    width, height = size
    boxes = np.array([label.box for label in labels], np.float64).reshape(-1, 4)
    clipped = np.clip(boxes, 0, np.array([width, height, width, height], np.float64))
    has_area = (clipped[:, 2] > clipped[:, 0]) & (clipped[:, 3] > clipped[:, 1])
    is_changed = np.abs(clipped - boxes).max(axis=1, initial=0) > _TOLERANCE
    for index in np.flatnonzero(is_changed | ~has_area):
        what = "is clipped to the image" if has_area[index] else "has no area in the image and is left out"
        corners = ", ".join(f"{value:g}" for value in boxes[index])
        text = f"the box ({corners}) {what}, which has {width} x {height} pixels"
        dataset.note(labels_file, labels[index].place, text)
    dataset.images.append(
        LabelledImage(
            path=path,
            width=width,
            height=height,
            boxes=clipped[has_area],
            class_ids=np.array([label.class_id for label in labels], np.int64)[has_area],
            is_crowd=np.array([label.is_crowd for label in labels], bool)[has_area],
        )
    )


def size_of_image(dataset: LabelledImages, path: Path) -> tuple[int, int] | None:
    """Width and height of the pixels as `decode_image` gives them; None, with a note, without them.

    The header of the file says it, but for images that EXIF turns: OpenCV obeys it in some formats only, so
    that these, other than JPEG, are decoded.
    """
    try:
        if path.exists() and not path.is_file():  # a pipe would wait for ever
            raise ImageFileError("it is no regular file")
        with Image.open(path, formats=FORMATS) as picture:
            if picture.getexif().get(_ORIENTATION) not in _TURNED:
                return picture.size
            if picture.format == "JPEG":
                return picture.height, picture.width
        height, width = read_image_file(path).shape[:2]
        return width, height
    except FileNotFoundError:
        dataset.note(path, "", "the labels name this image, but there is no such file")
    except ImageFileError as error:
        dataset.note(path, "", f"not an image that can be read: {error}")
    except Exception:  # Pillow raises many types for damaged headers
        dataset.note(path, "", "not an image that can be read")
    return None


def class_ids_of(
    dataset: LabelledImages, names: Sequence[object], places: Sequence[str], file: Path
) -> list[int | None]:
    """Sets the dataset's classes. Returns the class id of each name; None if it cannot be one, with a note.

    Names are spelled as prompts: blanks around them and double blanks do not count. Classes of one name are
    one class.

    Args:
        dataset: gets the classes.
        names: as the file has them.
        places: of each name in the file.
        file: that names the classes.
    """
    by_name: dict[str, int] = {}
    ids: list[int | None] = []
    for name, place in zip(names, places, strict=True):
        problem = class_name_problem(name)
        if problem:
            dataset.note(file, place, f"left out: {problem}")
            ids.append(None)
            continue
        spelled = normalized_prompt(str(name))
        if spelled in by_name:
            dataset.note(file, place, f"there is another class {spelled!r}; both count as one")
        ids.append(by_name.setdefault(spelled, len(by_name)))
    dataset.class_names = list(by_name)
    return ids


def class_name_problem(name: object) -> str | None:
    """Why a name cannot be one of a class; None if it can."""
    if not isinstance(name, str) or not name.strip():
        return "it has no name"
    problem = name_problem(name)
    return f"its name {problem}" if problem else None
