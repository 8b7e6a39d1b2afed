"""The pictures of the benchmarks: complete, legible, and of one style."""

import json
import math
from itertools import combinations

import cv2
import pytest
from matplotlib.text import Text

from benchmarks.draw import DRAWINGS, FOLDER, FOLDERS, publish
from benchmarks.plots import percentiles

MACHINE = {"machine": "2 CPU cores, float32", "image": "640 x 480"}
WITH_LARGE = MACHINE | {"machine": "2 CPU cores, float32, quarter width in bfloat16"}
BOX = percentiles([0.5, 1.0, 2.0, 3.5, 60.0])
BINS = {"score": [0.1, 0.5, 0.9], "right": [0.0, 0.4, 1.0]}
RESULTS = {
    "prompts": WITH_LARGE
    | {
        "n_prompts": [1, 2, 4, 8, 16],
        "models": {
            "bundled model": {
                "seconds": {
                    "our block": [0.057, 0.056, 0.056, 0.061, 0.101],
                    "core blocks": [0.05, 0.05, 0.06, 0.08, 0.14],
                    "core blocks, no image cache": [0.058, 0.12, 0.226, 0.456, 1.126],
                },
                "ratios": {
                    "core blocks": [0.9, 0.9, 1.1, 1.3, 1.4],
                    "core blocks, no image cache": [1.0, 2.1, 4.0, 7.5, 11.2],
                },
            },
            "quarter width, 5 objects a prompt": {
                "seconds": {
                    "our block": [11.1, 9.9, 8.6, 8.7, 9.7],
                    "core blocks": [10.6, 11.2, 12.4, 14.1, 18.3],
                    "core blocks, no image cache": [10.6, 18.0, 33.6, 71.2, 141.2],
                },
                "ratios": {
                    "core blocks": [1.0, 1.1, 1.4, 1.6, 1.9],
                    "core blocks, no image cache": [0.9, 1.8, 3.9, 8.1, 14.6],
                },
            },
        },
    },
    "dtypes": {
        "machine": "2 CPU cores",
        "image": "1280 x 720",
        "seconds": {
            "encode, 12 crops at most": {"float32": 7.11, "bfloat16": 3.21, "int8": 2.15},
            "encode, 1 crop at most": {"float32": 2.04, "bfloat16": 0.88, "int8": 0.57},
            "8 prompts, 5 objects each": {"float32": 1.74, "bfloat16": 0.38, "int8": 0.32},
        },
        "boxes": {
            "float32, 6 crops": {"mAP@50": 0.963, "mAP@50:95": 0.719},
            "float32, 1 crop": {"mAP@50": 0.901, "mAP@50:95": 0.435},
        },
    },
    "images": WITH_LARGE
    | {
        "n_prompts": 2,
        "n_images": [1, 4, 8],
        "models": {
            "bundled model": {
                "our block": [17.0, 22.0, 23.4],
                "core blocks": [14.1, 18.0, 19.9],
                "core blocks, no image cache": [9.8, 11.2, 11.1],
            },
            "quarter width, 5 objects a prompt": {
                "our block": [0.13, 0.145, 0.129],
                "core blocks": [0.12, 0.141, 0.122],
                "core blocks, no image cache": [0.069, 0.063, 0.065],
            },
        },
    },
    "overhead": MACHINE | {"milliseconds": {"our block": BOX, "core block": BOX}},
    "remote": MACHINE
    | {
        "n_images": 8,
        "n_prompts": 4,
        "round_trip_ms": 50.0,
        "seconds": {
            "1 at once": {"our block": 0.49, "core blocks": 3.7},
            "8 at once": {"our block": 0.47, "core blocks": 1.5},
        },
    },
    "time_spent": WITH_LARGE
    | {
        "n_prompts": 8,
        "models": {
            "bundled model": {"crops": 10.0, "vision encoder": 24.6, "image prefix": 5.6, "decode steps": 7},
            "quarter width": {"crops": 30.0, "vision encoder": 5600, "image prefix": 1700, "decode steps": 9},
        },
    },
    "dataset_export": MACHINE
    | {
        "n_boxes": 3,
        "n_images": [50, 25_000, 50_000],
        "milliseconds": {"coco": [7.0, 8, 9], "yolo": [7.0, 7], "pascal_voc": [6.0, 12]},
        "ratios": {"coco": 1.02, "yolo": 0.98, "pascal_voc": 0.97},
    },
    "soak": {"machine": "2 CPU cores, float32", "image": "320 x 240, 640 x 480, 1280 x 720"}
    | {
        "n_clients": 16,
        "minutes": 4.0,
        "n_good": 2034,
        "n_bad": 361,
        "n_problems": 0,
        "growth": 0.028,
        "seconds": {"detect_and_visualize": BOX, "tiled_small_objects": BOX, "crop_and_prompt_again": BOX},
        "memory": [[0, 1.3], [120, 1.8], [240, 1.9]],
    },
    "scores": {
        "n_scenes": 400,
        "scenes": {
            kind: {
                "boxes": 6494,
                "right": 0.68,
                "scores": {"p_object": BINS, "p_object x p_box (chosen)": BINS},
            }
            for kind in ("hard", "ordinary")
        },
    },
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_every_text_is_inside_the_picture_and_covers_no_other(name, monkeypatch):
    figure = DRAWINGS[name](RESULTS[name])
    drawn, draw_text = [], Text.draw
    figure.draw_without_rendering()  # places everything
    monkeypatch.setattr(
        Text, "draw", lambda text, *others, **named: drawn.append(text) or draw_text(text, *others, **named)
    )

    figure.canvas.draw()

    extents = {
        text: text.get_window_extent() for text in drawn if text.get_visible() and text.get_text().strip()
    }
    assert len(extents) > 8
    for (text, extent), (other, other_extent) in combinations(extents.items(), 2):
        assert not extent.overlaps(other_extent), (text, other)
    for axis in figure.axes:
        for text in axis.texts:
            assert axis.bbox.x0 <= extents[text].x0 <= extents[text].x1 <= axis.bbox.x1, text
    for text, extent in extents.items():
        assert figure.bbox.x0 <= extent.x0 <= extent.x1 <= figure.bbox.x1, text
        assert figure.bbox.y0 <= extent.y0 <= extent.y1 <= figure.bbox.y1, text


@pytest.mark.parametrize("name", ["overhead", "soak"])
def test_medians_stand_at_the_medians(name):
    axis = DRAWINGS[name](RESULTS[name]).axes[0]

    places = sorted(text.xy for text in axis.texts)
    assert [x for x, _ in places] == [BOX[2]] * len(axis.get_yticks())
    assert sorted(round(y - 0.2) for _, y in places) == sorted(axis.get_yticks())


def test_a_ratio_is_nearest_to_its_own_point():
    for axis in DRAWINGS["prompts"](RESULTS["prompts"]).axes:
        axis.figure.draw_without_rendering()
        with_ratios = [point for line in axis.lines[1:] for point in zip(*line.get_data(), strict=True)]
        points = axis.transData.transform(with_ratios)
        assert len(axis.texts) >= 6
        for text in axis.texts:
            extent = text.get_window_extent()
            centre = ((extent.x0 + extent.x1) / 2, (extent.y0 + extent.y1) / 2)
            nearest = min(points, key=lambda point: math.dist(point, centre))
            assert nearest == pytest.approx(axis.transData.transform(text.xy))


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_picture_says_what_is_compared_and_on_what(name):
    figure = DRAWINGS[name](RESULTS[name])

    texts = " ".join(text.get_text() for text in figure.findobj(Text))
    for key in ("machine", "image"):
        assert RESULTS[name].get(key, "") in texts
    title, conditions = (text.get_text() for text in figure.texts)
    assert title
    assert conditions
    assert all(axis.get_xlabel() or axis.get_ylabel() for axis in figure.axes)


def test_results_are_written_and_drawn(tmp_path):
    publish("prompts", RESULTS["prompts"], tmp_path / "new")

    assert json.loads((tmp_path / "new" / "prompts.json").read_text()) == RESULTS["prompts"]
    picture = cv2.imread(str(tmp_path / "new" / "prompts.png"))
    assert picture.min() < 100 < picture.max()


@pytest.mark.parametrize("name", DRAWINGS)
def test_stored_results_can_be_drawn(name, tmp_path):
    stored = FOLDERS.get(name, FOLDER) / f"{name}.json"
    if not stored.exists():
        pytest.skip("not measured since results are stored")

    publish(name, json.loads(stored.read_text()), tmp_path)
