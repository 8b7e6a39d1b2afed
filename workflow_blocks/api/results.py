"""What the functions return: results that show themselves in a terminal and in a notebook."""

import base64
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image, ImageColor, ImageDraw, ImageOps
from rich.console import Console

from workflow_blocks.image_files import FORMATS
from workflow_blocks.running.files import shown
from workflow_blocks.running.folder import Run, RunResult
from workflow_blocks.running.report import count_boxes, counts_by_class, outputs_of, print_summary

_MAX_PICTURES = 12
_MAX_FAILURES = 50
_SIDE = 280  # pixels
_COLOURS = ("#ea580c", "#0284c7", "#15803d", "#c026d3", "#ca8a04", "#dc2626", "#4f46e5", "#0d9488")
_PICTURE_SUFFIXES = {".jpg", ".jpeg", ".png"}


@dataclass(frozen=True, repr=False)
class FolderResult:
    """What a workflow gave for the files of a folder.

    Attributes:
        run: the workflow, its parameters, and the folder of the results.
        result: the files that are done and those that failed.
        skipped: why other files of the folder were left out.
    """

    run: Run
    result: RunResult
    skipped: Mapping[Path, str]

    @property
    def output(self) -> Path:
        """The folder of the results."""
        return self.run.output

    @property
    def failures(self) -> Mapping[Path, str]:
        """Why files failed."""
        return self.result.failures

    @cached_property
    def outputs(self) -> dict[Path, dict[str, Any]]:
        """The workflow's outputs for each image, as its `results.json` holds them; not of videos."""
        return dict(outputs_of(self.result))

    @property
    def counts(self) -> dict[str, int]:
        """The boxes of each class in all images; empty if the workflow has no output `counts`."""
        return {name: boxes for name, (boxes, _) in count_boxes(self.result).items()}

    def __repr__(self) -> str:
        console = Console(file=io.StringIO(), highlight=False, emoji=False)
        with console.capture() as captured:
            if table := counts_by_class(self.result):
                console.print(table)
            print_summary(console, self.run, self.result, self.skipped)
            for note in self._notes():
                console.print(note, markup=False, soft_wrap=True)
        return captured.get().rstrip()

    def _notes(self) -> list[str]:
        """What else to show, a line each."""
        return []

    def _repr_html_(self) -> str:
        return "".join(["<div>", *self._html(), "</div>"])

    def _html(self) -> Iterator[str]:
        n_failed = len(self.failures)
        yield f"<p><b>{len(self.result.results)} done, {n_failed} failed</b>, in {_text(self.output)}</p>"
        yield from (f"<p>{_text(note)}</p>" for note in self._notes())
        counts = count_boxes(self.result)
        if counts:
            rows = [
                f"<tr><td>{_text(name)}</td><td>{boxes}</td><td>{n_images}</td></tr>"
                for name, (boxes, n_images) in counts.items()
            ]
            head = "<tr><th>class</th><th>boxes</th><th>in images</th></tr>"
            yield f"<table>{head}{''.join(rows)}</table>"
        if self.failures:
            failed = list(self.failures.items())
            items = [
                f"<li>{_text(path.name)}: {_text(reason)}</li>" for path, reason in failed[:_MAX_FAILURES]
            ]
            more = f"<li>... and {n_failed - _MAX_FAILURES} more</li>" if n_failed > _MAX_FAILURES else ""
            yield f"<p>Failed:</p><ul>{''.join(items)}{more}</ul>"
        yield '<div style="display:flex;flex-wrap:wrap;gap:12px">'
        for path in list(self.outputs)[:_MAX_PICTURES]:
            if picture := self._picture(path):
                yield (
                    f'<figure style="margin:0;max-width:{_SIDE}px"><img src="{picture}" alt="">'
                    f'<figcaption style="overflow-wrap:anywhere">{_text(path.name)}</figcaption></figure>'
                )
        yield "</div>"

    def _picture(self, path: Path) -> str | None:
        """A data URL of a picture that the workflow drew, or of the image with its boxes."""
        drawn = sorted(self.result.results[path].rglob("*"))
        pictures = [file for file in drawn if file.suffix.lower() in _PICTURE_SUFFIXES]
        try:
            with Image.open(pictures[0] if pictures else path, formats=FORMATS) as opened:
                image = ImageOps.exif_transpose(opened).convert("RGB")
        except (OSError, ValueError, Image.DecompressionBombError):
            return None  # the image was moved, or only OpenCV reads it
        scale = _SIDE / max(image.size)
        image = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
        if not pictures:
            self._draw_boxes(image, self.outputs[path].get("predictions"), scale)
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=80)
        return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"

    def _draw_boxes(self, image: Image.Image, predictions: object, scale: float) -> None:
        boxes = predictions.get("predictions") if isinstance(predictions, dict) else None
        names = list(self.counts)
        draw = ImageDraw.Draw(image)
        for box in boxes if isinstance(boxes, list) else []:
            if not {"x", "y", "width", "height", "class"} <= box.keys():  # of a classification
                continue
            width, height = box["width"] * scale, box["height"] * scale
            left, top = box["x"] * scale - width / 2, box["y"] * scale - height / 2
            number = names.index(box["class"]) if box["class"] in names else 0
            colour = ImageColor.getrgb(_COLOURS[number % len(_COLOURS)])
            draw.rectangle((left, top, left + width, top + height), outline=colour, width=3)


@dataclass(frozen=True, repr=False)
class LabelledFolder(FolderResult):
    """A folder of images that were labelled."""

    @property
    def dataset(self) -> Path:
        """The folder of the dataset."""
        return Path(self.run.parameters["target_directory"])

    @cached_property
    def split_sizes(self) -> dict[str, int]:
        """How many of these images each split has, with 0 for a split that has a share and got none."""
        split = self.run.parameters["split"]
        shares = {split: 1} if isinstance(split, str) else split
        paths = [outputs.get("image_path") for outputs in self.outputs.values()]
        folder = self.dataset.resolve()
        places = [Path(path).resolve().relative_to(folder).parts[0] for path in paths if path]
        return {name: places.count(name) for name, share in shares.items() if share > 0}

    def _notes(self) -> list[str]:
        sizes = ", ".join(f"{size} in {name}" for name, size in self.split_sizes.items())
        empty = [name for name, size in self.split_sizes.items() if not size]
        why = (
            f"No image is in {' and '.join(empty)}: the content of each image decides where it goes. "
            "Give more images, or other shares"
        )
        return [f"Images of the dataset: {sizes}", *([why] if empty and self.outputs else [])]


def _text(value: object) -> str:
    return escape(shown(value) if isinstance(value, Path) else _encodable(str(value)))


def _encodable(text: str) -> str:
    """Text that can be encoded: what is not Unicode is written as an escape."""
    return text.encode("utf-8", "backslashreplace").decode()
