"""Reads the datasets of `make_exports` with the tools that people use, and compares what they find.

`python tests/readers/check_readers.py FOLDER`, in an environment with the packages of `requirements.txt`. It
imports nothing of this project, and ends with an error if a reader finds something else than was written.
"""

import contextlib
import io
import json
import os
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

# Pixels by which boxes may differ.
TOLERANCES = {"coco": 0.02, "yolo": 0.02, "pascal_voc": 1.01}
HEIGHT, WIDTH = 97, 131
# One epoch, to see that Ultralytics trains at all.
TRAINING = {
    **{"epochs": 1, "imgsz": 64, "batch": 4, "device": "cpu", "workers": 0},
    **{"plots": False, "amp": False, "verbose": False},
}
COLON, NO_COLON = "a: b # c", "a b c"

# A class name and a box (x_min, y_min, x_max, y_max) for each object, by image file name.
Objects = dict[str, list[tuple[str, list[float]]]]
READERS: dict[str, Callable[[Path, dict[str, Objects]], None]] = {}


def reader(name: str):
    def register(check):
        READERS[name] = check
        return check

    return register


def compare(found: Objects, expected: Objects, format: str, classes: bool = True) -> None:
    assert set(found) == set(expected), set(found) ^ set(expected)
    for name, objects in expected.items():
        own = sorted((c if classes else "", [round(v, 1) for v in b]) for c, b in found[name])
        right = sorted((c if classes else "", [round(v, 1) for v in b]) for c, b in objects)
        assert [c for c, _ in own] == [c for c, _ in right], (name, own, right)
        for box in (box for _, box in found[name]):
            distances = [np.abs(np.subtract(box, other)).max() for _, other in objects]
            assert min(distances) <= TOLERANCES[format], (name, box, objects)


def corners(x: float, y: float, width: float, height: float) -> list[float]:
    return [x, y, x + width, y + height]


@reader("pycocotools: COCO")
def pycocotools_coco(folder, expected):
    from pycocotools.coco import COCO

    for split, objects in expected.items():
        coco = COCO(str(folder / "coco" / split / "_annotations.coco.json"))
        names = {item["id"]: item["name"] for item in coco.loadCats(coco.getCatIds())}
        found = {
            image["file_name"]: [
                (names[item["category_id"]], corners(*item["bbox"]))
                for item in coco.loadAnns(coco.getAnnIds(imgIds=image["id"]))
            ]
            for image in coco.loadImgs(coco.getImgIds())
        }
        compare(found, objects, "coco")


def with_supervision(folder, expected, format):
    import supervision as sv

    for split, objects in expected.items():
        images = folder / format / split
        if format == "coco":
            dataset = sv.DetectionDataset.from_coco(str(images), str(images / "_annotations.coco.json"))
        elif format == "yolo":
            yaml = str(folder / format / "data.yaml")
            dataset = sv.DetectionDataset.from_yolo(str(images / "images"), str(images / "labels"), yaml)
        else:
            dataset = sv.DetectionDataset.from_pascal_voc(str(images), str(images))
        found = {
            Path(path).name: [
                (dataset.classes[class_id], box.tolist())
                for class_id, box in zip(detections.class_id, detections.xyxy, strict=True)
            ]
            for path, _, detections in dataset
        }
        compare(found, objects, format)


@reader("supervision: COCO")
def supervision_coco(folder, expected):
    with_supervision(folder, expected, "coco")


@reader("supervision: YOLO")
def supervision_yolo(folder, expected):
    with_supervision(folder, expected, "yolo")


@reader("supervision: Pascal VOC")
def supervision_pascal_voc(folder, expected):
    with_supervision(folder, expected, "pascal_voc")


def with_datumaro(folder, expected, place, importer, format=None):
    import datumaro

    dataset = datumaro.Dataset.import_from(str(folder / place), importer)
    labels = dataset.categories()[datumaro.AnnotationType.label]
    found: dict[str, Objects] = {split: {} for split in expected}
    for item in dataset:
        boxes = [a for a in item.annotations if a.type == datumaro.AnnotationType.bbox]
        objects = [(labels[a.label].name, corners(*a.get_bbox())) for a in boxes]
        found[item.subset][Path(item.media.path).name] = objects
    for split, objects in expected.items():
        compare(found[split], objects, format or place)


@reader("datumaro: COCO")
def datumaro_coco(folder, expected):
    with_datumaro(folder, expected, "coco", "roboflow_coco")


@reader("datumaro: YOLO")
def datumaro_yolo(folder, expected):
    """It leaves out images without boxes."""
    labelled = {
        split: {name: boxes for name, boxes in objects.items() if boxes}
        for split, objects in expected.items()
    }
    with_datumaro(folder, labelled, "yolo", "roboflow_yolo")


@reader("datumaro: Pascal VOC in the layout of the VOC challenge")
def datumaro_pascal_voc_in_the_layout_of_the_voc_challenge(folder, expected):
    """It reads images beside their XML only if `roboflow.ai` wrote them. Its label map cannot hold colons."""
    voc = folder / "voc_challenge"
    shutil.rmtree(voc, ignore_errors=True)
    for split in expected:
        for path in (folder / "pascal_voc" / split).iterdir():
            target = voc / ("Annotations" if path.suffix == ".xml" else "JPEGImages") / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".xml":
                target.write_text(path.read_text().replace(COLON, NO_COLON))
            else:
                shutil.copy(path, target)
        names = [path.stem for path in (folder / "pascal_voc" / split).glob("*.xml")]
        sets = voc / "ImageSets" / "Main" / f"{split}.txt"
        sets.parent.mkdir(parents=True, exist_ok=True)
        sets.write_text("".join(f"{name}\n" for name in names))
    expected = json.loads(json.dumps(expected, ensure_ascii=False).replace(COLON, NO_COLON))
    names = sorted({name for images in expected.values() for boxes in images.values() for name, _ in boxes})
    (voc / "labelmap.txt").write_text("".join(f"{name}:::\n" for name in names))
    with_datumaro(folder, expected, "voc_challenge", "voc_detection", "pascal_voc")


@reader("datumaro: COCO as CVAT imports it")
def datumaro_coco_as_cvat_imports_it(folder, expected):
    """CVAT takes `annotations/instances_*.json`, or one such file."""
    import datumaro

    for split, objects in expected.items():
        upload = folder / "cvat" / split
        shutil.rmtree(upload, ignore_errors=True)
        shutil.copytree(folder / "coco" / split, upload / "images" / split)
        (upload / "annotations").mkdir()
        json_file = upload / "images" / split / "_annotations.coco.json"
        json_file.rename(upload / "annotations" / f"instances_{split}.json")
        dataset = datumaro.Dataset.import_from(str(upload), "coco_instances")
        labels = dataset.categories()[datumaro.AnnotationType.label]
        found = {
            Path(item.media.path).name: [
                (labels[a.label].name, corners(*a.get_bbox()))
                for a in item.annotations
                if a.type == datumaro.AnnotationType.bbox
            ]
            for item in dataset
        }
        compare(found, objects, "coco")


@reader("Ultralytics: check and training")
def ultralytics_check_and_training(folder, expected):
    from ultralytics import YOLO
    from ultralytics.data import YOLODataset
    from ultralytics.data.utils import check_det_dataset

    yaml = str(folder / "yolo" / "data.yaml")
    data = check_det_dataset(yaml, autodownload=False)
    for split, key in (("train", "train"), ("valid", "val"), ("test", "test")):
        dataset = YOLODataset(img_path=data[key], data=data, augment=False)
        found = {}
        for label in dataset.labels:
            scale = [WIDTH, HEIGHT, WIDTH, HEIGHT]
            boxes = np.asarray(label["bboxes"]).reshape(-1, 4)
            found[Path(label["im_file"]).name] = [
                (data["names"][int(c)], ((np.r_[b[:2] - b[2:] / 2, b[:2] + b[2:] / 2]) * scale).tolist())
                for c, b in zip(label["cls"].ravel(), boxes, strict=True)
            ]
        compare(found, expected[split], "yolo")
    YOLO("yolov8n.yaml").train(data=yaml, project=str(folder / "ultralytics"), **TRAINING)


@reader("Ultralytics: one split only")
def ultralytics_one_split_only(folder, expected):
    from ultralytics.data.utils import check_det_dataset

    single = folder / "yolo_one_split"
    if not single.exists():
        raise AssertionError("make_exports did not write it")
    data = check_det_dataset(str(single / "data.yaml"), autodownload=False)
    assert all(Path(data[key]).is_dir() for key in ("train", "val"))


def compare_masks(found: dict[str, np.ndarray], folder: Path) -> None:
    """Masks by image file name, of which each object covers what was written up to its border."""
    expected = np.load(folder / "masks.npz")
    assert set(found) == set(expected.files), set(found) ^ set(expected.files)
    for name in expected.files:
        mask, right = found[name].astype(bool), expected[name]
        assert mask.shape == right.shape, (name, mask.shape, right.shape)
        iou = (mask & right).sum() / (mask | right).sum()
        assert iou > 0.9, (name, iou)


def filled(polygons: list[np.ndarray], height: int, width: int) -> np.ndarray:
    """The mask of outlines (N, 2) in pixels, by the even-odd rule."""
    import cv2

    mask = np.zeros((height, width), np.uint8)
    cv2.fillPoly(mask, [np.round(polygon).astype(np.int32) for polygon in polygons], 1)
    return mask


@reader("masks, datumaro: COCO")
def datumaro_masks_coco(folder, expected):
    import datumaro

    folder = folder / "masks" / "coco"
    dataset = datumaro.Dataset.import_from(str(folder), "roboflow_coco")
    found = {}
    for item in dataset:
        height, width = item.media.size
        parts = [
            a.image
            if a.type == datumaro.AnnotationType.mask
            else filled([np.reshape(a.points, (-1, 2))], height, width)
            for a in item.annotations
            if a.type in (datumaro.AnnotationType.mask, datumaro.AnnotationType.polygon)
        ]
        found[Path(item.media.path).name] = np.any(parts, axis=0)
    compare_masks(found, folder)


@reader("masks, Ultralytics: YOLO outlines and training")
def ultralytics_masks(folder, expected):
    from ultralytics import YOLO
    from ultralytics.data import YOLODataset
    from ultralytics.data.utils import check_det_dataset

    folder = folder / "masks" / "yolo"
    yaml = str(folder / "data.yaml")
    data = check_det_dataset(yaml, autodownload=False)
    found = {}
    for key in ("train", "val"):
        for label in YOLODataset(img_path=data[key], data=data, augment=False, task="segment").labels:
            height, width = label["shape"]
            outlines = [segment * [width, height] for segment in label["segments"]]
            found[Path(label["im_file"]).name] = filled(outlines, height, width)
    compare_masks(found, folder)
    YOLO("yolov8n-seg.yaml").train(data=yaml, project=str(folder / "ultralytics"), **TRAINING)


@reader("masks, FiftyOne: COCO")
def fiftyone_masks_coco(folder, expected):
    from fiftyone.utils.coco import COCODetectionDatasetImporter

    folder = folder / "masks" / "coco"
    found = {}
    for split in ("train", "valid"):
        labels = folder / split / "_annotations.coco.json"
        importer = COCODetectionDatasetImporter(
            data_path=str(folder / split), labels_path=str(labels), label_types="segmentations"
        )
        with importer:
            for path, metadata, label in importer:
                height, width = metadata.height, metadata.width
                objects = label["segmentations"] if isinstance(label, dict) else label
                mask = np.zeros((height, width), bool)
                for item in objects.detections:
                    mask |= item.to_segmentation(frame_size=(width, height)).mask.astype(bool)
                found[Path(path).name] = mask
    compare_masks(found, folder)


@reader("Hugging Face datasets: captions")
def datasets_captions(folder, expected):
    os.environ["HF_HUB_OFFLINE"] = "1"
    from datasets import load_dataset

    for name, texts in json.loads((folder / "captions" / "expected.json").read_text()).items():
        found = load_dataset("imagefolder", data_dir=str(folder / "captions" / name))
        assert {split: sorted(found[split]["text"]) for split in found} == {
            {"valid": "validation"}.get(split, split): sorted(captions) for split, captions in texts.items()
        }
        assert all(image.size == (WIDTH, HEIGHT) for split in found for image in found[split]["image"])


@reader("albumentations: YOLO rows")
def albumentations_yolo_rows(folder, expected):
    import albumentations

    transform = albumentations.Compose(
        [albumentations.NoOp()], bbox_params=albumentations.BboxParams(format="yolo", label_fields=["ids"])
    )
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    n_rows = 0
    for path in (folder / "yolo").glob("*/labels/*.txt"):
        rows = [list(map(float, line.split())) for line in path.read_text().splitlines()]
        boxes = [row[1:] for row in rows]
        transform(image=image, bboxes=boxes, ids=[0] * len(boxes))
        if boxes:
            transform(image=image, bboxes=np.array(boxes, np.float32), ids=[0] * len(boxes))
        n_rows += len(rows)
    assert n_rows == sum(len(objects) for images in expected.values() for objects in images.values())


def with_fiftyone(importer) -> Objects:
    """Its importers read without its database."""
    found: Objects = {}
    scale = [WIDTH, HEIGHT, WIDTH, HEIGHT]
    with importer:
        for path, _, label in importer:
            objects = label.get("detections") if isinstance(label, dict) else label
            found[Path(path).name] = [
                (item.label, (np.array(corners(*item.bounding_box)) * scale).tolist())
                for item in (objects.detections if objects else [])
            ]
    return found


@reader("FiftyOne: COCO")
def fiftyone_coco(folder, expected):
    from fiftyone.utils.coco import COCODetectionDatasetImporter

    for split, objects in expected.items():
        images = folder / "coco" / split
        labels = images / "_annotations.coco.json"
        importer = COCODetectionDatasetImporter(data_path=str(images), labels_path=str(labels))
        compare(with_fiftyone(importer), objects, "coco")


@reader("FiftyOne: YOLO")
def fiftyone_yolo(folder, expected):
    from fiftyone.utils.yolo import YOLOv5DatasetImporter

    keys = {"train": "train", "valid": "val", "test": "test"}
    for split, objects in expected.items():
        importer = YOLOv5DatasetImporter(
            dataset_dir=str(folder / "yolo"), yaml_path="data.yaml", split=keys[split], include_all_data=True
        )
        compare(with_fiftyone(importer), objects, "yolo")


@reader("FiftyOne: Pascal VOC")
def fiftyone_pascal_voc(folder, expected):
    from fiftyone.utils.voc import VOCDetectionDatasetImporter

    for split, objects in expected.items():
        images = folder / "pascal_voc" / split
        # Given a folder, it takes the XML files beside the images for images.
        paths = {path.name: str(path) for path in images.glob("*.jpg")}
        importer = VOCDetectionDatasetImporter(data_path=paths, labels_path=str(images))
        compare(with_fiftyone(importer), objects, "pascal_voc")


def label_studio_objects(tasks) -> Iterator[tuple[str, list[tuple[str, list[float]]]]]:
    for task in tasks:
        objects = []
        for item in task["annotations"][0]["result"]:
            value = item["value"]
            box = np.array(corners(value["x"], value["y"], value["width"], value["height"])) / 100
            objects.append((value["rectanglelabels"][0], (box * [WIDTH, HEIGHT, WIDTH, HEIGHT]).tolist()))
        yield Path(task["data"]["image"].split("=")[-1]).name, objects


@reader("Label Studio: YOLO")
def label_studio_yolo(folder, expected):
    from label_studio_sdk.converter.imports.yolo import convert_yolo_to_ls

    for split, objects in expected.items():
        out = folder / f"label_studio_yolo_{split}.json"
        convert_yolo_to_ls(str(folder / "yolo" / split), str(out), image_root_url="/data?d=")
        from urllib.parse import unquote

        found = {unquote(name): boxes for name, boxes in label_studio_objects(json.loads(out.read_text()))}
        compare(found, objects, "yolo")


@reader("Label Studio: COCO")
def label_studio_coco(folder, expected):
    from urllib.parse import unquote

    from label_studio_sdk.converter.imports.coco import convert_coco_to_ls

    for split, objects in expected.items():
        out = folder / f"label_studio_coco_{split}.json"
        convert_coco_to_ls(str(folder / "coco" / split / "_annotations.coco.json"), str(out))
        found = {unquote(name): boxes for name, boxes in label_studio_objects(json.loads(out.read_text()))}
        labelled = {name: boxes for name, boxes in objects.items() if boxes}  # it leaves out empty images
        compare({name: boxes for name, boxes in found.items() if boxes}, labelled, "coco")


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> int:
    folder = Path(sys.argv[1]).resolve()
    wanted = sys.argv[2:]
    expected = json.loads((folder / "expected.json").read_text())
    failed = []
    for name, check in READERS.items():
        if wanted and not any(word.lower() in name.lower() for word in wanted):
            continue
        output = io.StringIO()
        try:
            with contextlib.redirect_stdout(output):
                check(folder, expected)
            say(f"{name}: as written")
        except Exception:
            failed.append(name)
            say(f"{name}: FAILED\n{output.getvalue()[-2000:]}{traceback.format_exc()}")
    say(f"{len(failed)} readers failed: {failed}" if failed else "All readers found what was written.")
    return bool(failed)


if __name__ == "__main__":
    os.environ.setdefault("YOLO_OFFLINE", "true")
    sys.exit(main())
