"""Makes a dataset of a job's rows: many tasks write images and shards, and one merges the shards.

What a task writes depends on its part of the rows alone. So a task that is repeated writes the same files
again, and an image has the same id in every export.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Literal, get_args

import pyarrow as pa

from workflow_blocks.cluster.addresses import name_of, without_secrets
from workflow_blocks.cluster.errors import ClusterError
from workflow_blocks.cluster.fetch import FetchError, fetch
from workflow_blocks.cluster.job_folder import JobFolder
from workflow_blocks.cluster.manifest import Manifest
from workflow_blocks.cluster.parts import rows_file
from workflow_blocks.cluster.session import import_ray, last_line, quiet_data_context
from workflow_blocks.cluster.store import Store
from workflow_blocks.datasets.class_names import check_class_name
from workflow_blocks.datasets.coco_file import annotations_of_image, categories_of, entry_of_image
from workflow_blocks.datasets.errors import DatasetError
from workflow_blocks.datasets.formats import SPLITS, SplitName
from workflow_blocks.datasets.image_files import encode, file_stem
from workflow_blocks.datasets.pascal_voc_file import pascal_voc_xml
from workflow_blocks.datasets.records import ImageRecord
from workflow_blocks.datasets.splits import content_of, split_of
from workflow_blocks.datasets.yolo_files import data_yaml, label_text
from workflow_blocks.image_files import ImageFileError, decode_image

ExportFormat = Literal["coco", "yolo", "pascal_voc", "parquet"]
EXPORT_FORMATS: tuple[ExportFormat, ...] = get_args(ExportFormat)

_SHARDS = "shards"
_THREADS = 16
_MAX_SHARD_BYTES = 2**27
_COLUMNS = ["id", "uri", "width", "height", "error", "detections"]
_TABLE_SCHEMA = pa.schema(
    [
        ("image_id", pa.int64()),
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("width", pa.int64()),
        ("height", pa.int64()),
        (
            "objects",
            pa.struct([("bbox", pa.list_(pa.list_(pa.float64()))), ("category", pa.list_(pa.string()))]),
        ),
    ]
)


@dataclass(frozen=True)
class Export:
    """What is exported, and how.

    Attributes:
        results: the output folder of a job.
        output: the folder of the dataset.
        format: one of `EXPORT_FORMATS`.
        shares: the share of each split; an image's pixels decide where it goes.
        class_names: the classes in the order of their ids; None counts them first.
        detections: the workflow's output whose detections are exported; needed if several have some.
    """

    results: Store
    output: Store
    format: ExportFormat
    shares: Mapping[SplitName, float]
    class_names: tuple[str, ...] | None = None
    detections: str | None = None


@dataclass(frozen=True)
class ExportSummary:
    """How many images a dataset has, by split, and why others are not in it, by address."""

    images: dict[str, int]
    n_boxes: int
    class_names: tuple[str, ...]
    failures: dict[str, str]


def export_dataset(export: Export) -> ExportSummary:
    """Writes a dataset, on the Ray cluster that this process is connected to.

    Raises:
        ClusterError: the results have no rows, several outputs have detections, the output has files, or one
            of both cannot be used.
    """
    manifest, parts = check_export(export)
    try:
        return _export(export, manifest, parts)
    except OSError as error:
        reason = without_secrets(error.strerror or str(error))
        raise ClusterError(
            f"the results cannot be read, or {export.output.address} not written: {reason}"
        ) from error


def _export(export: Export, manifest: Manifest, parts: Sequence[int]) -> ExportSummary:
    class_names = _classes(export, parts)
    for name in class_names:
        try:
            check_class_name(name)
        except DatasetError as error:
            raise ClusterError(str(error)) from error
    write = partial(_write_part, export, manifest, class_names)
    summaries = list(_on_ray(write, parts))
    failures = {uri: reason for summary in summaries for uri, reason in summary["failures"].items()}
    images: Counter[str] = Counter()
    for summary in summaries:
        images.update(summary["images"])
    used = [split for split in SPLITS if images[split]]
    _merge(export, class_names, used)
    export.output.remove_folder(_SHARDS)
    n_boxes = sum(summary["n_boxes"] for summary in summaries)
    return ExportSummary({split: images[split] for split in used}, n_boxes, class_names, failures)


def check_export(export: Export) -> tuple[Manifest, list[int]]:
    """The job's manifest and the parts that have rows. It needs no Ray.

    Raises:
        ClusterError: there are no results, or the output has files or cannot be written.
    """
    folder = JobFolder(export.results)
    manifest = Manifest(**folder.job()["manifest"])
    parts = sorted(folder.parts_done())
    if not parts:
        raise ClusterError(f"{export.results.address} has no rows yet")
    export.output.check_writable()
    if any(export.output.names()):
        raise ClusterError(f"{export.output.address} is not empty; give another --output")
    return manifest, parts


def _on_ray(function: Callable[[int], dict[str, Any]], parts: Sequence[int]) -> Iterator[dict[str, Any]]:
    """What a function returns for each part, in any order; tasks that die are repeated."""
    ray = import_ray()
    quiet_data_context()

    def each(batch: dict[str, Any]) -> dict[str, list[str]]:
        return {"json": [json.dumps(function(int(part))) for part in batch["part"]]}

    dataset = ray.data.from_items([{"part": part} for part in parts], override_num_blocks=len(parts))
    try:
        for row in dataset.map_batches(each, batch_size=1).iter_rows():
            yield json.loads(row["json"])
    except ray.exceptions.RayError as error:
        raise ClusterError(f"the dataset cannot be written: {last_line(error)}") from error


def _classes(export: Export, parts: Sequence[int]) -> tuple[str, ...]:
    """The fixed classes; else those that the rows have, in the order of their ids in the workflow."""
    found: dict[str, set[int]] = defaultdict(set)
    outputs: set[str] = set()
    for counted in _on_ray(partial(_count_classes, export), parts):
        outputs.update(counted["outputs"])
        for name, ids in counted["classes"].items():
            found[name].update(ids)
    if export.detections is None and len(outputs) > 1:
        raise ClusterError(
            f"several outputs of the workflow have detections: {', '.join(sorted(outputs))}; "
            f"give --detections {min(outputs)}"
        )
    if export.detections is not None and export.detections not in outputs:
        raise ClusterError(
            f"no output `{export.detections}` has detections; these have: "
            f"{', '.join(sorted(outputs)) or 'none'}"
        )
    if export.class_names is not None:
        unknown = sorted(found.keys() - set(export.class_names))
        if unknown:
            raise ClusterError(f"the rows have classes that are not given: {', '.join(unknown)}")
        return export.class_names
    first_ids = {name: min(ids) for name, ids in found.items()}
    are_fixed = all(len(ids) == 1 for ids in found.values()) and len(set(first_ids.values())) == len(found)
    return tuple(sorted(found, key=first_ids.__getitem__) if are_fixed else sorted(found))


def _count_classes(export: Export, part: int) -> dict[str, Any]:
    classes: dict[str, set[int]] = defaultdict(set)
    outputs = set()
    table = export.results.read_table(rows_file(part), ["detections"])
    for found in table["detections"].to_pylist():
        for box in found or []:
            outputs.add(box["output"])
            if export.detections in (None, box["output"]):
                classes[box["class"]].add(-1 if box["class_id"] is None else box["class_id"])
    return {"classes": {name: sorted(ids) for name, ids in classes.items()}, "outputs": sorted(outputs)}


@dataclass(frozen=True)
class _Labelled:
    """An image of the dataset; its content is empty once its file is written."""

    record: ImageRecord
    content: bytes


def _write_part(
    export: Export, manifest: Manifest, class_names: tuple[str, ...], part: int
) -> dict[str, Any]:
    """Writes the images of a part and their shards."""
    rows = export.results.read_table(rows_file(part), _COLUMNS).to_pylist()
    failures: dict[str, str] = {}
    shards = _Shards(export, class_names, part)

    def write(index: int) -> _Labelled | None:
        row = rows[index]
        try:
            if row["error"] is not None:
                raise FetchError(row["error"])
            image = _labelled(export, class_names, part * manifest.part_rows + index + 1, row)
        except (FetchError, ImageFileError, DatasetError) as error:
            failures[row["uri"]] = str(error)
            return None
        files = _files_of(export.format, image, class_names)
        for name, content in files.items():
            export.output.write(name, content)
        return replace(image, content=b"") if files else image

    with ThreadPoolExecutor(_THREADS) as threads:
        for start in range(0, len(rows), _THREADS):
            indices = range(start, min(start + _THREADS, len(rows)))
            for image in threads.map(write, indices):
                if image is not None:
                    shards.add(image)
    shards.close()
    return {"images": shards.n_images, "n_boxes": shards.n_boxes, "failures": failures}


def _labelled(export: Export, class_names: Sequence[str], number: int, row: Mapping[str, Any]) -> _Labelled:
    original = fetch(row["uri"])
    image = decode_image(original)
    height, width = image.shape[:2]
    if (width, height) != (row["width"], row["height"]):
        raise DatasetError(
            f"it has changed since the job: {width} x {height} pixels, and {row['width']} x {row['height']} "
            "before"
        )
    name = name_of(row["uri"])
    suffix = ".png" if PurePosixPath(name).suffix.lower() == ".png" else ".jpg"
    boxes = [box for box in row["detections"] if export.detections in (None, box["output"])]
    content = content_of(image)
    record = ImageRecord(
        id=number,
        content=content,
        split=split_of(content, export.shares),
        file_name=f"{file_stem(name, row['id'])}{suffix}",
        width=width,
        height=height,
        boxes=tuple(_clipped(box, width, height) for box in boxes),
        class_ids=tuple(class_names.index(box["class"]) for box in boxes),
        source_name=name.encode(errors="replace").decode(),
    )
    return _Labelled(record, encode(image, suffix, 95, original))


def _clipped(box: Mapping[str, float], width: int, height: int) -> tuple[float, float, float, float]:
    x_min, x_max = (min(max(box[name], 0.0), float(width)) for name in ("x_min", "x_max"))
    y_min, y_max = (min(max(box[name], 0.0), float(height)) for name in ("y_min", "y_max"))
    return x_min, y_min, x_max, y_max


def _files_of(format: ExportFormat, image: _Labelled, class_names: Sequence[str]) -> dict[str, bytes]:
    """The files of one image, by their place in the dataset."""
    record = image.record
    stem = PurePosixPath(record.file_name).stem
    if format == "coco":
        return {f"{record.split}/{record.file_name}": image.content}
    if format == "yolo":
        return {
            f"{record.split}/images/{record.file_name}": image.content,
            f"{record.split}/labels/{stem}.txt": label_text(record).encode(),
        }
    if format == "pascal_voc":
        return {
            f"{record.split}/{record.file_name}": image.content,
            f"{record.split}/{stem}.xml": pascal_voc_xml(record, class_names),
        }
    return {}


class _Shards:
    """What the files of all images say of those of one part: of COCO to be merged; of Parquet the files."""

    def __init__(self, export: Export, class_names: Sequence[str], part: int) -> None:
        self._export = export
        self._class_names = class_names
        self._part = part
        self._images: dict[str, list[_Labelled]] = defaultdict(list)
        self._n_files: Counter[str] = Counter()
        self.n_images: Counter[str] = Counter()
        self.n_boxes = 0

    def add(self, image: _Labelled) -> None:
        split = image.record.split
        self.n_images[split] += 1
        self.n_boxes += len(image.record.boxes)
        self._images[split].append(image)
        if sum(len(other.content) for other in self._images[split]) > _MAX_SHARD_BYTES:
            self._write(split)

    def close(self) -> None:
        for split, images in list(self._images.items()):
            if images:
                self._write(split)

    def _write(self, split: str) -> None:
        images = self._images.pop(split)
        name = f"{split}-{self._part:07}-{self._n_files[split]:03}"
        self._n_files[split] += 1
        if self._export.format == "coco":
            entries = {
                "images": [entry_of_image(image.record) for image in images],
                "annotations": [entry for image in images for entry in annotations_of_image(image.record)],
            }
            text = {field: ",\n".join(map(json.dumps, of_field)) for field, of_field in entries.items()}
            self._export.output.write(f"{_SHARDS}/{name}.json", json.dumps(text).encode())
        elif self._export.format == "parquet":
            rows = [_row_of(image, self._class_names) for image in images]
            table = pa.Table.from_pylist(rows, schema=_TABLE_SCHEMA)
            self._export.output.write_table(f"data/{name}.parquet", table)


def _row_of(image: _Labelled, class_names: Sequence[str]) -> dict[str, Any]:
    record = image.record
    return {
        "image_id": record.id,
        "image": {"bytes": image.content, "path": record.file_name},
        "width": record.width,
        "height": record.height,
        "objects": {
            "bbox": [[x, y, x2 - x, y2 - y] for x, y, x2, y2 in record.boxes],
            "category": [class_names[class_id] for class_id in record.class_ids],
        },
    }


def _merge(export: Export, class_names: Sequence[str], splits: Sequence[SplitName]) -> None:
    if export.format == "coco":
        for split in splits:
            export.output.write_pieces(f"{split}/_annotations.coco.json", _coco(export, split, class_names))
    elif export.format == "yolo":
        export.output.write("data.yaml", data_yaml(Path("data.yaml"), None, class_names, splits))
        export.output.write("classes.txt", "".join(f"{name}\n" for name in class_names).encode())


def _coco(export: Export, split: SplitName, class_names: Sequence[str]) -> Iterator[bytes]:
    """The annotations file of a split; the driver holds one shard at a time."""
    names = sorted(name for name in export.output.names(_SHARDS) if name.startswith(f"{split}-"))
    yield b'{"info": {"description": "Written by moondream2-workflow-blocks"}, "licenses": [], "categories": '
    yield json.dumps(categories_of(class_names)).encode()
    for field in ("images", "annotations"):
        yield f', "{field}": [\n'.encode()
        separator = b""
        for name in names:
            text = json.loads(export.output.read(f"{_SHARDS}/{name}") or b"{}")[field]
            if text:
                yield separator + text.encode()
                separator = b",\n"
        yield b"\n]"
    yield b"}\n"
