"""A COCO annotations file to which an image is added at a cost that does not grow with the file.

The file is valid JSON at every moment, even while it changes and after its writer was killed. This takes two
copies: a change is made in the hidden copy, only at the bytes that differ, and that copy is then renamed to
the public name. The other copy catches up with the next change. Both start with a change counter, which is
written last, so that it shows how far a copy got.

Places are byte offsets. Spaces after the categories and the images reserve room for more of them. When the
room is used up, or most of the file is spaces left by removed entries, the file is rewritten.
"""

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from supervision.dataset.formats.coco import classes_to_coco_categories, detections_to_coco_annotations

from workflow_blocks.datasets.atomic_files import write_atomically
from workflow_blocks.datasets.records import ImageRecord, Records

SCHEMA = """
CREATE TABLE IF NOT EXISTS coco_files (
    split TEXT PRIMARY KEY, layout TEXT NOT NULL, earlier_edits TEXT NOT NULL, last_edits TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS coco_entries (
    split TEXT NOT NULL, array TEXT NOT NULL, image_id INTEGER NOT NULL, place INTEGER NOT NULL,
    length INTEGER NOT NULL, PRIMARY KEY (split, array, image_id)
);
CREATE INDEX IF NOT EXISTS coco_places ON coco_entries (split, array, place);
"""

_HEAD = b'{"info": {"description": "Written by moondream2-workflow-blocks", "version": "'
_CATEGORIES = b'"}, "licenses": [], "categories": ['
_IMAGES = b'], "images": ['
_ANNOTATIONS = b'], "annotations": ['
_END = b"]}\n"

_FIRST_ROOM = 64 * 1024
_MIN_WASTE = 2**20
# The annotation ids of an image start at its id times this.
_MAX_BOXES = 100_000

# Places and what is written there, ASCII.
Edits = list[tuple[int, str]]


@dataclass
class Layout:
    """Where the parts of one file are."""

    generation: int  # how often the file was rewritten
    count: int  # of changes in this generation
    n_classes: int = 0
    categories_at: int = 0
    categories_end: int = 0
    images_at: int = 0  # where the next image goes
    images_end: int = 0
    annotations_at: int = 0  # where the next image's annotations go; the end of the file is there now
    wasted: int = 0

    @property
    def stamp(self) -> bytes:
        """Identifies the state of a copy; always of the same length."""
        return f"{self.generation:06}.{self.count:012}".encode()


_STAMP_LENGTH = len(Layout(0, 0).stamp)


class CocoFile:
    """The annotations of one split. The caller must hold the dataset's lock."""

    def __init__(self, records: Records, path: Path, hidden_folder: Path, split: str) -> None:
        self._records = records
        self._db = records.connection
        self._path = path
        self._hidden_folder = hidden_folder
        self._split = split

    def change(self, removed: int | None, added: ImageRecord | None) -> None:
        """Prepares a change. Called inside `Records.change`, after the records were changed.

        Args:
            removed: the id of an image that is removed or replaced.
            added: the image that is added.
        """
        layout = self._layout()
        if layout is None:
            self._rewrite(generation=1)
            return
        edits = self._edits(layout, removed, added)
        if edits is None or layout.wasted > max(_MIN_WASTE, layout.annotations_at // 2):
            self._rewrite(layout.generation + 1)
            return
        layout.count += 1
        edits.append((len(_HEAD), layout.stamp.decode()))
        self._db.execute(
            "UPDATE coco_files SET layout = ?, earlier_edits = last_edits, last_edits = ? WHERE split = ?",
            (json.dumps(asdict(layout)), json.dumps(edits), self._split),
        )

    def publish(self) -> None:
        """Makes the last prepared change public, if it is not yet."""
        layout = self._layout()
        if layout is None or _stamp_of(self._path) == layout.stamp:
            return
        hidden = self._hidden(layout.generation)
        self._catch_up(hidden, layout)
        public = hidden.with_suffix(".link")
        public.unlink(missing_ok=True)
        try:
            os.link(hidden, public)
        except OSError:  # a disk without links: a copy, at a cost that grows with the file
            shutil.copyfile(hidden, public)
        public.replace(self._path)
        for copy in self._hidden_folder.glob(f"{self._split}.*.json"):
            if copy not in self._copies(layout.generation):
                copy.unlink()

    def _edits(self, layout: Layout, removed: int | None, added: ImageRecord | None) -> Edits | None:
        """What to write where, with `layout` updated; None if it does not fit."""
        edits: Edits = []
        if removed is not None:
            for array in ("images", "annotations"):
                edits += self._erase(layout, array, removed)
        class_names = self._records.class_names()
        if len(class_names) > layout.n_classes:
            categories = _items(classes_to_coco_categories(class_names))
            if layout.categories_at + len(categories) > layout.categories_end:
                return None
            edits.append((layout.categories_at, categories))  # longer than what was there
            layout.n_classes = len(class_names)
        if added is None:
            return edits
        image = self._append("images", added.id, layout.images_at, _items([_image(added)]))
        layout.images_at += len(image)
        if layout.images_at > layout.images_end:
            return None
        edits.append((layout.images_at - len(image), image))
        if added.boxes:
            annotations = _items(_annotations(added))
            annotations = self._append("annotations", added.id, layout.annotations_at, annotations)
            edits.append((layout.annotations_at, annotations + _END.decode()))
            layout.annotations_at += len(annotations)
        return edits

    def _append(self, array: str, image_id: int, place: int, text: str) -> str:
        """Records an entry at the end of an array, and returns its text with the comma that it needs."""
        if self._first_place(array) is not None:
            text = "," + text
        row = (self._split, array, image_id, place, len(text))
        self._db.execute("INSERT INTO coco_entries VALUES (?, ?, ?, ?, ?)", row)
        return text

    def _erase(self, layout: Layout, array: str, image_id: int) -> Edits:
        """Overwrites an entry with spaces, and the next entry's comma if that entry becomes the first."""
        key = (self._split, array, image_id)
        where = "split = ? AND array = ? AND image_id = ?"
        entry = self._db.execute(f"SELECT place, length FROM coco_entries WHERE {where}", key).fetchone()
        if entry is None:
            return []
        place, length = entry
        was_first = place == self._first_place(array)
        self._db.execute(f"DELETE FROM coco_entries WHERE {where}", key)
        layout.wasted += length
        edits: Edits = [(place, " " * length)]
        following = self._first_place(array)
        if was_first and following is not None:
            edits.append((following, " "))
        return edits

    def _first_place(self, array: str) -> int | None:
        row = self._db.execute(
            "SELECT min(place) FROM coco_entries WHERE split = ? AND array = ?", (self._split, array)
        ).fetchone()
        place: int | None = row[0]
        return place

    def _rewrite(self, generation: int) -> None:
        """Writes a whole file, with room for twice as many images, under a hidden name."""
        self._db.execute("DELETE FROM coco_entries WHERE split = ?", (self._split,))
        class_names = self._records.class_names()
        layout = Layout(generation, 0, n_classes=len(class_names))
        content = _HEAD + layout.stamp + _CATEGORIES
        layout.categories_at = len(content)
        categories = _items(classes_to_coco_categories(class_names)).encode()
        content += categories.ljust(max(_FIRST_ROOM, 2 * len(categories)))
        layout.categories_end = len(content)
        content += _IMAGES
        images, annotations = [], []
        layout.images_at = start = len(content)
        for record in self._records.of_split(self._split):
            images.append(self._append("images", record.id, layout.images_at, _items([_image(record)])))
            layout.images_at += len(images[-1])
        used = layout.images_at - start
        layout.images_end = layout.images_at + max(_FIRST_ROOM, used)
        content += "".join(images).encode().ljust(layout.images_end - start) + _ANNOTATIONS
        layout.annotations_at = len(content)
        for record in self._records.of_split(self._split):
            if record.boxes:
                text = _items(_annotations(record))
                annotations.append(self._append("annotations", record.id, layout.annotations_at, text))
                layout.annotations_at += len(annotations[-1])
        content += "".join(annotations).encode() + _END
        row = (self._split, json.dumps(asdict(layout)), "[]", "[]")
        self._db.execute("INSERT OR REPLACE INTO coco_files VALUES (?, ?, ?, ?)", row)
        first, second = self._copies(generation)
        second.unlink(missing_ok=True)
        write_atomically(first, content)

    def _catch_up(self, copy: Path, layout: Layout) -> None:
        """Brings a hidden copy up to date; it is at most two changes behind, because it was public before."""
        if not copy.exists():
            write_atomically(copy, self._path.read_bytes())
        if _stamp_of(copy) == layout.stamp:
            return
        earlier, last = self._db.execute(
            "SELECT earlier_edits, last_edits FROM coco_files WHERE split = ?", (self._split,)
        ).fetchone()
        with copy.open("r+b", buffering=0) as file:
            # Rewriting the same bytes is harmless; the stamp is the last edit of each change.
            for place, text in [*json.loads(earlier), *json.loads(last)]:
                file.seek(place)
                file.write(text.encode())

    def _hidden(self, generation: int) -> Path:
        """The copy that is not public."""
        first, second = self._copies(generation)
        is_public = first.exists() and self._path.exists() and first.samefile(self._path)
        return second if is_public else first

    def _copies(self, generation: int) -> tuple[Path, Path]:
        name = f"{self._split}.{generation}"
        return self._hidden_folder / f"{name}.a.json", self._hidden_folder / f"{name}.b.json"

    def _layout(self) -> Layout | None:
        row = self._db.execute("SELECT layout FROM coco_files WHERE split = ?", (self._split,)).fetchone()
        return Layout(**json.loads(row[0])) if row else None


def _stamp_of(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            file.seek(len(_HEAD))
            return file.read(_STAMP_LENGTH)
    except FileNotFoundError:
        return None


def _image(record: ImageRecord) -> dict[str, Any]:
    return {"id": record.id, "file_name": record.file_name, "width": record.width, "height": record.height}


def _annotations(record: ImageRecord) -> list[dict[str, Any]]:
    annotations, _ = detections_to_coco_annotations(
        record.detections, image_id=record.id, annotation_id=record.id * _MAX_BOXES
    )
    return list(annotations)


def _items(values: Sequence[dict[str, Any]]) -> str:
    """The text between the brackets of a JSON array; ASCII, so that places are bytes."""
    return json.dumps(list(values))[1:-1]
