"""The functions for Python with the demo model on drawn scenes: what they write, show and refuse."""

import json
import re
import subprocess
import sys

import cv2
import numpy as np
import pytest

from tests.scenes import image_bgr, scene
from tests.workflows.definitions import detection_step, workflow
from workflow_blocks.api import ArgumentError, evaluate, label_folder, run_folder
from workflow_blocks.api.errors import naming
from workflow_blocks.datasets.dataset import Dataset
from workflow_blocks.datasets.labelled import read_labelled
from workflow_blocks.running.errors import RunError

SHAPES = ["circle", "square", "triangle", "star"]
# Small scenes with one object each.
CIRCLE, STAR = 8, 0
HOSTILE = "<img src=x onerror=alert(1)>"
# A heavy module, or one of its submodules.
HEAVY = {"torch", "inference", "inference_models", "roboflow_workflows", "inference_cli"}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Two scenes, and a file that is no image; one name has HTML in it."""
    folder = tmp_path_factory.mktemp("images")
    for number, name in ((CIRCLE, "<b>a&b<b>.png"), (STAR, "b.png")):
        assert cv2.imwrite(str(folder / name), image_bgr(number))
    (folder / "broken.png").write_bytes(b"no image")
    (folder / "notes.txt").write_text("no image")
    return folder


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("labelled") / "shapes"
    with Dataset(folder, "yolo", SHAPES) as written:
        for number in (CIRCLE, STAR):
            boxes = [tuple(map(float, item.xyxy)) for item in scene(number).objects]
            shapes = [item.shape for item in scene(number).objects]
            written.add(image_bgr(number), boxes, shapes, "valid", ".png", source_name=f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def labelled(images, tmp_path_factory):
    classes = {"circle": ["circle", "round shape"], HOSTILE: "star"}
    return label_folder(
        images, classes, tmp_path_factory.mktemp("labels"), "coco", split="train", progress=False
    )


def test_prompts_that_differ_only_in_blanks_are_one(images, tmp_path):
    result = label_folder([images / "b.png"], ["star", "star ", " star"], tmp_path / "o", progress=False)

    assert result.counts == {"star": 1}


def test_a_split_without_an_image_is_reported(images, tmp_path):
    shares = {"train": 1e-9, "valid": 1, "test": 0}
    result = label_folder([images / "b.png"], ["star"], tmp_path / "o", split=shares, progress=False)

    assert result.split_sizes == {"train": 0, "valid": 1}
    for shown in (repr(result), result._repr_html_()):
        assert "0 in train, 1 in valid" in shown
        assert "No image is in train: " in shown


LIBRARY_LIKE_INFERENCE = """
import logging, workflow_blocks.api as api
{setup}
api._use_local_settings()
logging.basicConfig(level=logging.INFO)
logging.getLogger("workflow_blocks.inference_host.request_log").info("a request")
logging.getLogger("inference").warning("a problem")
"""


@pytest.mark.parametrize(("setup", "is_shown"), [("", False), ("logging.basicConfig(level='INFO')", True)])
def test_a_plain_script_shows_warnings_only(setup, is_shown):
    code = LIBRARY_LIKE_INFERENCE.format(setup=setup)
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr

    assert "a problem" in printed
    assert ("a request" in printed) == is_shown


def test_importing_the_module_imports_neither_torch_nor_inference():
    code = "import sys, workflow_blocks.api; print([name.partition('.')[0] for name in sys.modules])"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert "workflow_blocks" in printed
    assert not HEAVY & set(re.findall(r"\w+", printed))


def test_a_folder_is_labelled(labelled, images):
    coco = json.loads((labelled.dataset / "train" / "_annotations.coco.json").read_text())

    assert {path.name for path in labelled.outputs} == {"<b>a&b<b>.png", "b.png"}
    assert labelled.counts.keys() == {"circle", HOSTILE}
    assert labelled.counts["circle"] == labelled.counts[HOSTILE] == 1
    assert len(coco["annotations"]) == sum(labelled.counts.values())
    assert list(labelled.failures) == [images / "broken.png"]
    assert list(labelled.skipped) == [images / "notes.txt"]


def test_a_result_shows_itself_as_text_and_in_a_notebook(labelled):
    text, html = repr(labelled), labelled._repr_html_()

    assert str(labelled) == text
    assert "2 done, 1 failed" in text
    assert "broken.png" in text
    assert "2 done, 1 failed" in html
    assert html.count('src="data:image/jpeg;base64,') == 2
    assert "&lt;b&gt;a&amp;b&lt;b&gt;.png" in html
    for hostile in (HOSTILE, "<b>a"):
        assert hostile not in html
    assert set(re.findall(r"<(\w+)", html)) <= {
        *("div", "p", "b", "table", "tr", "th", "td", "ul", "li", "figure", "figcaption", "img"),
    }


def test_a_relative_output_shows_itself_too(images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)

    for output in ("results/labels", "link/results/others"):
        result = label_folder([images / "b.png"], ["star"], output, split="train", progress=False)
        assert result.split_sizes == {"train": 1}
        assert "1 in train" in repr(result)


def test_a_workflow_s_own_outputs_show_themselves(images, tmp_path):
    definition = workflow(
        detection_step(prompts=["star"]),
        {
            "type": "roboflow_core/property_definition@v1",
            "name": "nested",
            "data": "$steps.detection.counts",
            "operations": [],
        },
        inputs=[],
        outputs={"counts": "$steps.detection.attributes"},
    )

    result = run_folder(definition, [images / "b.png"], tmp_path / "o", progress=False)

    assert "1 done" in repr(result)
    assert result.counts == {}


def test_progress_is_a_function_that_wraps_the_files(images, tmp_path, capsys):
    seen = []

    def track(files):
        for file in files:
            seen.append(file.name)
            yield file

    result = run_folder(
        "detect_objects", [images / "b.png"], tmp_path / "out", {"prompts": ["star"]}, progress=track
    )

    assert seen == ["b.png"]
    assert capsys.readouterr().out == ""
    (outputs,) = result.outputs.values()
    assert outputs["counts"] == result.counts
    assert (result.output / "aggregated_results.csv").is_file()


def test_prompts_are_evaluated_and_the_chosen_ones_label_a_folder(dataset, images, tmp_path, capsys):
    evaluation = evaluate(
        dataset, {"circle": ["circle", "dog"], "star": "star"}, tmp_path / "e", progress=False
    )
    printed = capsys.readouterr().out
    chosen = evaluation.chosen()
    result = label_folder([images / "b.png"], chosen, tmp_path / "l", split="valid", progress=False)

    assert printed == ""
    assert 0.7 < evaluation.metrics.map_50 <= 1
    assert {path.name for path in (tmp_path / "e").iterdir()} >= {
        "report.html",
        "metrics.json",
        "prompts.json",
    }
    assert chosen == json.loads((tmp_path / "e" / "prompts.json").read_text())
    assert "circle" in repr(evaluation)
    assert "2 images" in repr(evaluation)
    assert "<svg" in evaluation._repr_html_()
    assert result.run.parameters["confidence"] == chosen["confidence"]
    assert read_labelled(result.dataset, "valid", "yolo").class_names == ["circle", "star"]


def test_a_workflow_is_evaluated(dataset, tmp_path):
    evaluation = evaluate(
        dataset,
        None,
        tmp_path / "e",
        workflow="detect_objects",
        parameters={"prompts": ["star"]},
        progress=False,
    )

    assert "detect_objects" in evaluation.title
    assert {one.name: one.n_detections > 0 for one in evaluation.metrics.classes} == {"star": True}
    assert evaluation.unsearched.keys() >= {"circle"}
    assert evaluation.chosen()["prompts"] == {"star": "star"}


IMAGE, CLASSES, OUT = "images", ["star"], "out"
BAD = {
    "no folder": ("images", lambda p: label_folder(p / "none", CLASSES, p / OUT)),
    "no images": ("images", lambda p: label_folder(p / "empty", CLASSES, p / OUT)),
    "an empty list": ("images", lambda p: label_folder([], CLASSES, p / OUT)),
    "a missing file in a list": ("images", lambda p: run_folder("detect_objects", [p / "none.png"], p / OUT)),
    "images as a number": ("images", lambda p: run_folder("detect_objects", 7, p / OUT)),
    "one text as classes": ("classes", lambda p: label_folder(p / IMAGE, "star", p / OUT)),
    "no class": ("classes", lambda p: label_folder(p / IMAGE, [], p / OUT)),
    "a blank class": ("classes", lambda p: label_folder(p / IMAGE, {" ": "star"}, p / OUT)),
    "a number as prompt": ("classes", lambda p: label_folder(p / IMAGE, {"star": 7}, p / OUT)),
    "prompts too deep": ("classes", lambda p: label_folder(p / IMAGE, {"star": {"a": "b"}}, p / OUT)),
    "too many classes": ("classes", lambda p: label_folder(p / IMAGE, list(map(str, range(65))), p / OUT)),
    "two classes of one name": ("classes", lambda p: label_folder(p / IMAGE, {"a": "x", " a": "y"}, p / OUT)),
    "thresholds out of range": (
        "classes",
        lambda p: label_folder(p / IMAGE, {"prompts": CLASSES, "confidence": {"star": 2}}, p / OUT),
    ),
    "a format": ("format", lambda p: label_folder(p / IMAGE, CLASSES, p / OUT, "voc")),
    "a confidence": ("confidence", lambda p: label_folder(p / IMAGE, CLASSES, p / OUT, confidence=1.5)),
    "a text as confidence": (
        "confidence",
        lambda p: label_folder(p / IMAGE, CLASSES, p / OUT, confidence={"star": "high"}),
    ),
    "a number as text": (
        "confidence",
        lambda p: label_folder(p / IMAGE, CLASSES, p / OUT, confidence="0.5"),
    ),
    "a list as confidence": (
        "confidence",
        lambda p: label_folder(p / IMAGE, CLASSES, p / OUT, confidence=[0.5]),
    ),
    "no threshold": ("confidence", lambda p: label_folder(p / IMAGE, CLASSES, p / OUT, confidence={})),
    "a misspelt class": (
        "confidence",
        lambda p: label_folder(p / IMAGE, CLASSES, p / OUT, confidence={"satr": 0.9, "*": 0.1}),
    ),
    "a list as split": ("split", lambda p: label_folder(p / IMAGE, CLASSES, p / OUT, split=["train"])),
    "a misspelt split": ("split", lambda p: label_folder(p / IMAGE, CLASSES, p / OUT, split="trian")),
    "a negative share": ("split", lambda p: label_folder(p / IMAGE, CLASSES, p / OUT, split={"train": -1})),
    "shares of nothing": ("split", lambda p: label_folder(p / IMAGE, CLASSES, p / OUT, split={"train": 0})),
    "a long prompt": ("classes", lambda p: label_folder(p / IMAGE, ["x" * 300], p / OUT)),
    "a blank model": ("model", lambda p: label_folder(p / IMAGE, CLASSES, p / OUT, model=" ")),
    "a value of a parameter": (
        "parameters",
        lambda p: run_folder("count_by_prompt", p / IMAGE, p / OUT, {"confidence": 7}),
    ),
    "an output that is a file": ("output", lambda p: label_folder(p / IMAGE, CLASSES, p / IMAGE / "a.png")),
    "an output with the images": ("output", lambda p: label_folder(p / IMAGE, CLASSES, p / IMAGE)),
    "no output": ("output", lambda p: label_folder(p / IMAGE, CLASSES, "")),
    "progress": ("progress", lambda p: label_folder(p / IMAGE, CLASSES, p / OUT, progress="bar")),
    "a workflow's name": ("workflow", lambda p: run_folder("none", p / IMAGE, p / OUT)),
    "a workflow's type": ("workflow", lambda p: run_folder(None, p / IMAGE, p / OUT)),
    "a definition": ("workflow", lambda p: run_folder({"steps": 7}, p / IMAGE, p / OUT)),
    "a parameter": ("parameters", lambda p: run_folder("detect_objects", p / IMAGE, p / OUT, {"words": 1})),
    "parameters as a list": ("parameters", lambda p: run_folder("detect_objects", p / IMAGE, p / OUT, ["a"])),
    "a list as the split of a dataset": (
        "split",
        lambda p: evaluate(p / IMAGE, None, p / OUT, split=["valid"]),
    ),
    "a number as split": ("split", lambda p: evaluate(p / IMAGE, None, p / OUT, split=5)),
    "a number as model": ("model", lambda p: evaluate(p / IMAGE, None, p / OUT, model=5)),
    "no model": ("model", lambda p: evaluate(p / IMAGE, None, p / OUT, model=None)),
    "a number as prompt's class": ("prompts", lambda p: evaluate(p / IMAGE, {1: "b"}, p / OUT)),
    "a number as class": ("classes", lambda p: label_folder(p / IMAGE, {1: "b"}, p / OUT)),
    "a set as prompts": (
        "parameters",
        lambda p: run_folder("detect_objects", p / IMAGE, p / OUT, {"prompts": {"a"}}),
    ),
    "an array as prompts": (
        "parameters",
        lambda p: run_folder("detect_objects", p / IMAGE, p / OUT, {"prompts": np.array(["a"])}),
    ),
    "an output that no folder can have": (
        "output",
        lambda p: run_folder("detect_objects", p / IMAGE, "o\0x"),
    ),
    "no dataset": ("dataset", lambda p: evaluate(p / "none", None, p / OUT)),
    "a dataset without labels": ("dataset", lambda p: evaluate(p / IMAGE, None, p / OUT)),
    "a dataset's format": ("dataset", lambda p: evaluate(p / IMAGE, None, p / OUT, format="voc")),
    "one text as prompts": ("prompts", lambda p: evaluate(p / IMAGE, "star", p / OUT)),
    "parameters without a workflow": (
        "parameters",
        lambda p: evaluate(p / IMAGE, None, p / OUT, parameters={}),
    ),
    "prompts and a workflow": (
        "prompts",
        lambda p: evaluate(p / IMAGE, CLASSES, p / OUT, workflow="detect_objects"),
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_names_the_argument(name, tmp_path):
    argument, call = BAD[name]
    (tmp_path / "images").mkdir()
    (tmp_path / "empty").mkdir()
    assert cv2.imwrite(str(tmp_path / "images" / "a.png"), image_bgr(STAR))

    with pytest.raises(ArgumentError, match=f"`{argument}`") as caught:
        call(tmp_path)

    assert "--" not in str(caught.value)
    assert [path.name for path in (tmp_path / "images").iterdir()] == ["a.png"]


def test_results_of_other_prompts_are_not_mixed(images, dataset, tmp_path):
    files = [images / "b.png"]
    run_folder("detect_objects", files, tmp_path / "r", {"prompts": ["star"]}, progress=False)

    with pytest.raises(ArgumentError, match=r"`output`.* `again=True`"):
        run_folder("detect_objects", files, tmp_path / "r", {"prompts": ["circle"]}, progress=False)
    again = run_folder(
        "detect_objects", files, tmp_path / "r", {"prompts": ["circle"]}, again=True, progress=False
    )
    assert again.counts.keys() == {"circle"}
    with pytest.raises(ArgumentError, match="`output`"):
        evaluate(dataset, ["star"], tmp_path / "r", progress=False)


def test_an_output_of_the_workflow_that_is_not_there(dataset, tmp_path):
    with pytest.raises(ArgumentError, match="`workflow`: the workflow has no output 'boxes'"):
        evaluate(
            dataset,
            None,
            tmp_path / "e",
            workflow="detect_objects",
            parameters={"prompts": ["star"]},
            predictions="boxes",
            progress=False,
        )


def test_messages_of_commands_name_arguments():
    with (
        pytest.raises(ArgumentError, match=r"^give `images`, another `output`, or `again=True`$"),
        naming("output"),
    ):
        raise RunError("give --input, another --output, or --again")
