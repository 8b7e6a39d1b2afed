"""Brings a dataset that release 0.1.0 wrote up to date."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from workflow_blocks.datasets.coco_file import CocoFiles
from workflow_blocks.datasets.file_changes import HIDDEN_FOLDER, DatasetFolder
from workflow_blocks.datasets.records import Records

_VERSION = 2


def upgrade(
    records: Records, folder: DatasetFolder, annotations: CocoFiles | None, splits: Sequence[str]
) -> None:
    """Completes the records, once. The caller must hold the dataset's lock."""
    if records.version() >= _VERSION:
        return
    with records.change():
        if annotations is not None and records.setting("format") is not None:
            for split in splits:
                for record in records.of_split(split):
                    annotations.add_text(record)
                path = folder.checked(f"{split}/_annotations.coco.json")
                if path.exists() and _is_ours(path, records, annotations, split):
                    annotations.accept(split)
        records.execute("DROP TABLE IF EXISTS coco_entries")
        records.execute("DROP TABLE IF EXISTS coco_files")
        records.execute(f"PRAGMA user_version = {_VERSION}")
    _remove_leftovers(folder.path)


def _is_ours(path: Path, records: Records, annotations: CocoFiles, split: str) -> bool:
    """Whether the file is as it was written, or lacks the last changes because its writer was killed."""
    found = _read(path)
    if found is None:
        return False
    written = json.loads(annotations.content(split))
    if all(found.get(field) == written[field] for field in ("categories", "images", "annotations")):
        return True
    rows = records.execute("SELECT layout FROM coco_files WHERE split = ?", split)
    layout = json.loads(rows[0][0]) if rows else {}
    last = f"{layout.get('generation', 0):06}.{layout.get('count', 0):012}"
    return bool(found.get("info", {}).get("version") != last)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        document = json.loads(path.read_bytes())
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def _remove_leftovers(folder: Path) -> None:
    """Removes second copies of the annotations, and temporary files of writers that were killed."""
    leftovers = [*(folder / HIDDEN_FOLDER).glob("*.json"), *(folder / HIDDEN_FOLDER).glob(".*.part")]
    for place in ("", "*/", "*/images/", "*/labels/"):
        leftovers += folder.glob(f"{place}.????????.part")
    for path in leftovers:
        if path.resolve().is_relative_to(folder.resolve()):
            path.unlink(missing_ok=True)
