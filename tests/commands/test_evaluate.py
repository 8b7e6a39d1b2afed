"""`workflow-blocks evaluate` with the demo model on drawn scenes, and what reads its `prompts.json`."""

import contextlib
import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from tests.scenes import image_bgr, scene
from tests.workflows.definitions import detection_step, detection_workflow, workflow
from workflow_blocks.bundled_model import demo_model_folder
from workflow_blocks.commands.app import app
from workflow_blocks.datasets.dataset import Dataset
from workflow_blocks.datasets.labelled import read_labelled
from workflow_blocks.datasets.labelled_images import LabelledImage, LabelledImages
from workflow_blocks.evaluation import detecting
from workflow_blocks.evaluation.detecting import detect_in
from workflow_blocks.evaluation.evaluation import as_json, evaluate_prompts, evaluate_workflow
from workflow_blocks.evaluation.evaluation_page import page
from workflow_blocks.evaluation.searches import PromptFile, read_prompts, steps_of, views_of
from workflow_blocks.evaluation.weights import models_of, runtime_facts
from workflow_blocks.running.errors import RunError

SHAPES = ["circle", "square", "triangle", "star"]
N_IMAGES = 6
SAME_IMAGES = "which were chosen on these same images"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluated") / "shapes"
    with Dataset(folder, "yolo", SHAPES) as written:
        for number in range(N_IMAGES):
            boxes = [tuple(map(float, item.xyxy)) for item in scene(number).objects]
            names = [item.shape for item in scene(number).objects]
            written.add(image_bgr(number), boxes, names, "valid", ".png", source_name=f"<i>{number}</i>.png")
    return folder


def run(*words, code=0):
    result = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "160"})
    assert result.exit_code == code, result.output + repr(result.exception)
    return result.output


def evaluate(dataset, output, *words, code=0):
    return run("evaluate", "--dataset", dataset, "--output", output, *words, code=code)


def metrics_of(output):
    return json.loads((output / "metrics.json").read_text())


def write_json(path, value):
    path.write_text(json.dumps(value))
    return path


@pytest.fixture(scope="module")
def evaluated(dataset, tmp_path_factory):
    """An evaluation of classes with several wordings, of one that has no labels, and without one that has."""
    folder = tmp_path_factory.mktemp("evaluation")
    prompts = {"circle": ["circle", "dog"], "star": "star", "triangle": "triangle", "<b>dog</b>": "dog"}
    file = write_json(folder / "mine.json", prompts)
    output = folder / "output"
    printed = evaluate(dataset, output, "--prompts", file)
    return output, printed


def test_the_figures_of_drawn_scenes(evaluated):
    output, _ = evaluated
    metrics = metrics_of(output)

    assert 0.8 < metrics["map_50"] <= 1
    assert 0.4 < metrics["map_50_95"] <= metrics["map_50"]
    assert metrics["seconds_per_image"] > 0
    assert metrics["images"] == N_IMAGES
    assert list(metrics["classes"]) == ["circle", "triangle", "star"]  # as the dataset orders them
    for name, one in metrics["classes"].items():
        assert one["labels"] == sum(item.shape == name for n in range(N_IMAGES) for item in scene(n).objects)
        assert {"precision", "recall", "f1", "best_threshold", "ap_50"} <= one.keys()
        assert one["best_f1"] > 0.8
    assert metrics["classes_without_prompts"].keys() == {"square"}
    assert metrics["classes_without_labels"].keys() == {"<b>dog</b>"}
    assert metrics["problems"] == []
    assert metrics["failures"] == {}


def test_wordings_are_compared_and_the_best_is_chosen(evaluated):
    output, printed = evaluated
    wordings = {tuple(one["prompts"]): one for one in metrics_of(output)["wordings"]}

    assert set(wordings) == {("circle", "dog"), ("circle",), ("dog",)}
    assert wordings["circle",]["best_f1"] >= wordings["dog",]["best_f1"]
    chosen = json.loads((output / "prompts.json").read_text())
    assert chosen["prompts"]["circle"] == "circle"
    assert chosen["prompts"]["<b>dog</b>"] == "dog"
    assert set(chosen["confidence"]) == {"circle", "triangle", "star"}
    assert "circle + dog" in printed


def test_a_class_that_was_never_found_right_keeps_nothing(tmp_path):
    file = tmp_path / "a.png"
    cv2.imwrite(str(file), np.zeros((40, 40, 3), np.uint8))
    labels = np.array([[0.0, 0, 10, 10], [20, 20, 30, 30]])
    image = LabelledImage(file, 40, 40, labels, np.array([0, 1]), np.zeros(2, bool))
    dataset = LabelledImages(["good", "bad"], [image])
    prompts = ["good", "bad", "unlabelled", "given"]
    found = np.array([[0.0, 0, 10, 10], [5, 5, 15, 15], [5, 5, 9, 9]]), np.array([0.9, 0.8, 0.7])
    definition = {"inputs": [{"type": "WorkflowParameter", "name": "prompts"}]}

    with pytest.MonkeyPatch.context() as patch:
        detect = lambda image: (*found, ["good", "bad", "unlabelled"])  # noqa: E731
        patch.setattr("workflow_blocks.evaluation.evaluation.make_detector", lambda *_: detect)
        parameters, thresholds = {"prompts": prompts}, {"given": 0.3}
        evaluation = evaluate_workflow(
            dataset, definition, parameters, tmp_path / "output", "Test", thresholds=thresholds
        )

    chosen = evaluation.chosen()
    assert list(chosen["prompts"]) == prompts
    assert chosen["confidence"] == {"given": 0.3, "good": pytest.approx(0.45), "bad": 1.0}


def test_the_table_in_the_terminal(evaluated):
    output, printed = evaluated

    assert f"{metrics_of(output)['map_50']:.3f}" in printed
    assert "Searched for, but without labels" in printed
    assert SAME_IMAGES in printed
    assert SAME_IMAGES in (output / "report.html").read_text()
    assert "report.html" in printed


def test_the_report_needs_nothing_else_and_hostile_names_stay_text(evaluated):
    html = (evaluated[0] / "report.html").read_text()

    assert "<script" not in html
    assert not re.findall(r"(?:src|href)=\"(?!data:)", html)
    assert "http" not in html.replace("http://www.w3.org", "")
    assert "<b>dog" not in html
    assert "&lt;b&gt;dog&lt;/b&gt;" in html
    assert "<i>" not in html
    assert html.count("<polyline") >= 2 * 3
    for heading in ("Classes", "Wordings", "Curves", "Confusion matrix", "Missed objects", "False alarms"):
        assert f"<h2>{heading}" in html


def test_a_second_run_detects_nothing_again_and_gives_the_same(dataset, evaluated, monkeypatch, tmp_path):
    output = shutil.copytree(evaluated[0], tmp_path / "copy")
    before = metrics_of(output)
    with (output / "detections.jsonl").open("a") as file:
        file.write('{"image": "unfin')
    monkeypatch.setattr("workflow_blocks.evaluation.evaluation.make_detector", None)

    evaluate(dataset, output, "--prompts", evaluated[0].parent / "mine.json")

    assert metrics_of(output) == before


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path):
    images = [tmp_path / f"{number}.png" for number in range(4)]
    for number, path in enumerate(images):
        cv2.imwrite(str(path), np.full((8, 8, 3), number, np.uint8))
    seen = []

    def detector(stop_at):
        def detect(image):
            if len(seen) == stop_at:
                raise KeyboardInterrupt
            seen.append(int(image[0, 0, 0]))
            return np.zeros((1, 4)), np.ones(1), ["a"]

        return lambda: detect

    output = tmp_path / "output"
    with pytest.raises(KeyboardInterrupt):
        detect_in(images, {"a": 1}, output, detector(2))
    result = detect_in(images, {"a": 1}, output, detector(-1))

    assert seen == [0, 1, 2, 3]
    assert result.n_done_before == 2
    assert len(result.found) == 4
    with pytest.raises(RunError, match="--again"):
        detect_in(images, {"a": 2}, output, detector(-1))
    assert detect_in(images, {"a": 2}, output, detector(-1), again=True).n_done_before == 0


def test_an_image_that_fails_is_listed_and_the_rest_goes_on(tmp_path):
    images = [tmp_path / "bad.png", tmp_path / "gone.png", tmp_path / "good.png"]
    images[0].write_bytes(b"not an image")
    cv2.imwrite(str(images[2]), np.zeros((8, 8, 3), np.uint8))

    result = detect_in(
        images, {}, tmp_path / "output", lambda: lambda image: (np.zeros((0, 4)), np.zeros(0), [])
    )

    assert list(result.found) == [2]
    assert list(result.failures) == [0, 1]
    assert "not an image" in result.failures[0]


def test_results_of_others_are_not_touched(dataset, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")

    assert "no evaluation has made" in evaluate(dataset, tmp_path, code=1)


def test_the_chosen_prompts_are_read_by_run_and_by_evaluate(dataset, evaluated, tmp_path, monkeypatch):
    chosen = evaluated[0] / "prompts.json"
    monkeypatch.chdir(tmp_path)

    printed = evaluate(dataset, tmp_path / "again", "--prompts", chosen)
    assert SAME_IMAGES not in printed  # the thresholds were given
    assert SAME_IMAGES not in (tmp_path / "again" / "report.html").read_text()
    again = metrics_of(tmp_path / "again")["classes"]
    for name, one in metrics_of(evaluated[0])["classes"].items():
        threshold = json.loads(chosen.read_text())["confidence"][name]
        assert again[name]["threshold"] == threshold
        assert again[name]["f1"] >= one["best_f1"] - 0.02

    images = dataset / "valid" / "images"
    run("run", "count_by_class", "--input", images, "--output", tmp_path / "run", "--parameters", chosen)
    results = [json.loads(file.read_text()) for file in (tmp_path / "run").glob("*/results.json")]
    assert len(results) == N_IMAGES
    for name, one in again.items():
        assert sum(result["counts"][name] for result in results) == one["detections"]
        scores = [
            box["confidence"]
            for result in results
            for box in result["predictions"]["predictions"]
            if box["class"] == name
        ]
        assert min(scores) >= one["threshold"]


def test_any_workflow_can_be_evaluated(dataset, evaluated, tmp_path):
    step = "detection_1"  # as the steps of an evaluation of prompts are named
    own = workflow(
        detection_step(name=step, prompts="$inputs.words"),
        inputs=("words",),
        outputs={"counts": f"$steps.{step}.counts", "boxes": f"$steps.{step}.predictions"},
    )
    file = write_json(tmp_path / "mine.json", own)

    words = ("--workflow", file, "--words", '["circle", "star", "triangle", "house"]')
    evaluate(dataset, tmp_path / "output", *words)

    metrics = metrics_of(tmp_path / "output")
    expected = metrics_of(evaluated[0])["classes"]
    for name in ("star", "triangle"):
        assert metrics["classes"][name]["ap_50"] == pytest.approx(expected[name]["ap_50"], abs=1e-6)
    assert metrics["classes"]["square"]["ap_50"] == 0  # any class of the dataset counts
    assert not (tmp_path / "output" / "prompts.json").exists()  # only the workflow knows its prompts
    message = evaluate(dataset, tmp_path / "other", *words, "--predictions", "no_such", code=1)
    assert "no output 'no_such'; it has" in message


def test_prompts_of_a_workflow_are_those_that_it_searched_for(dataset, evaluated, tmp_path):
    prompts = {"circle": ["circle", "dog"], "star": "star", "<b>dog</b>": "dog"}
    document = {"prompts": prompts, "confidence": {"star": 0.6}}
    file = write_json(tmp_path / "mine.json", document)

    evaluate(dataset, tmp_path / "output", "--workflow", "count_by_class", "--prompts", file)

    metrics = metrics_of(tmp_path / "output")
    assert list(metrics["classes"]) == ["circle", "star"]
    assert metrics["classes"]["star"]["threshold"] == 0.6
    assert metrics["classes_without_prompts"].keys() == {"square", "triangle"}
    assert metrics["classes_without_labels"].keys() == {"<b>dog</b>"}
    expected = metrics_of(evaluated[0])["classes"]["circle"]["ap_50"]
    assert metrics["classes"]["circle"]["ap_50"] == pytest.approx(expected, abs=1e-6)
    chosen = json.loads((tmp_path / "output" / "prompts.json").read_text())
    assert chosen["prompts"] == prompts
    assert chosen["confidence"].keys() == {"circle", "star"}
    assert chosen["confidence"]["star"] >= 0.6  # nothing below was found


def with_inputs(folder, *names):
    """A workflow whose prompts are the first input; nothing uses the others."""
    own = workflow(
        detection_step(prompts=f"$inputs.{names[0]}"),
        inputs=names,
        outputs={"predictions": "$steps.detection.predictions"},
    )
    return write_json(folder / "workflow.json", own)


def test_parameters_with_the_name_of_an_option_come_after_a_double_dash(dataset, tmp_path):
    names = ("split", "model", "prompts", "format", "output", "dataset", "predictions")
    file = with_inputs(tmp_path, *names)
    words = [word for name in names[1:] for word in (f"--{name}", "7")]

    evaluate(dataset, tmp_path / "a", "--workflow", file, "--", "--split", '["star"]', *words)

    assert metrics_of(tmp_path / "a")["classes"]["star"]["ap_50"] > 0.5
    assert json.loads((tmp_path / "a" / "evaluation.json").read_text())["parameters"].keys() == set(names)


def test_folders_of_a_workflow_are_in_the_output(dataset, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ("--workflow", "label_a_dataset", "--", "--prompts", "star")

    evaluate(dataset, tmp_path / "output", *words)

    assert (tmp_path / "output" / "dataset").is_dir()
    assert {path.name for path in tmp_path.iterdir()} == {"output"}


def test_the_model_is_that_of_the_workflow(dataset, tmp_path):
    words = ("--workflow", "detect_objects", "--model", "no-such/1")

    message = evaluate(dataset, tmp_path / "output", *words, code=1)

    assert "no image could be processed" in message
    assert "no-such/1" in message


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--model", "m"], "--model: the workflow has no parameter `model`; it has words, confidence"),
        (["--prompts", "FILE"], "--prompts: the workflow has no parameter `prompts`; it has words"),
        (["--prompts", "FILE", "--", "--split", "x"], "the workflow has no parameter `split`"),
    ],
)
def test_no_option_is_ignored_by_a_workflow(dataset, tmp_path, words, problem):
    file = with_inputs(tmp_path, "words", "confidence")
    prompts = str(write_json(tmp_path / "prompts.json", ["star"]))
    words = [prompts if word == "FILE" else word for word in words]

    message = evaluate(dataset, tmp_path / "output", "--workflow", file, *words, code=1)

    assert problem in " ".join(message.split())


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--prompts", " "], "`prompts`"),
        (["--prompts", "star", "--confidence", "1.5"], "`confidence`"),
        (["--prompts", '{"star": "star"}', "--confidence", '{"circle": 0.5}'], "'circle'"),
    ],
)
def test_values_that_a_step_refuses_are_told_once(dataset, tmp_path, words, problem):
    own = detection_workflow(inputs=("prompts", "confidence"), confidence="$inputs.confidence")
    file = write_json(tmp_path / "workflow.json", own)

    message = evaluate(dataset, tmp_path / "o", "--workflow", file, "--", *words, code=1)

    assert message.count(problem) == 1
    assert "the workflow cannot be run" not in message
    assert not (tmp_path / "o" / "metrics.json").exists()


@pytest.mark.parametrize("name", ["model", "prompts"])
def test_a_parameter_is_given_once(dataset, tmp_path, name):
    prompts = write_json(tmp_path / "prompts.json", ["star"])
    words = (f"--{name}", prompts, "--", f"--{name}", "star")

    message = evaluate(dataset, tmp_path / "o", "--workflow", "detect_objects", *words, code=1)

    assert f"`{name}` is given before and after `--`" in " ".join(message.split())


def test_prompts_in_the_output_are_kept(dataset, evaluated, tmp_path):
    output, _ = evaluated
    before = (output / "prompts.json").read_bytes()

    printed = evaluate(dataset, output, "--prompts", output / "prompts.json", "--again", code=1)

    assert "holds the input" in " ".join(printed.split())
    assert (output / "prompts.json").read_bytes() == before


def test_a_workflow_does_not_write_to_the_dataset(dataset, tmp_path):
    words = ["--workflow", "label_a_dataset", "--target_directory", dataset]

    printed = evaluate(dataset, tmp_path / "o", *words, code=1)

    assert "holds the input" in " ".join(printed.split())


def test_a_sink_that_fails_fails_the_image(dataset, tmp_path):
    (tmp_path / "file").touch()
    words = ["--workflow", "label_a_dataset", "--target_directory", tmp_path / "file"]

    printed = evaluate(dataset, tmp_path / "o", *words, code=1)

    assert "no image could be processed: failed: " in printed


def test_other_weights_in_the_same_folder_need_another_output(dataset, tmp_path, monkeypatch):
    package = shutil.copytree(demo_model_folder(), tmp_path / "package")
    evaluate(dataset, tmp_path / "o", "--model", package)
    evaluate(dataset, tmp_path / "o", "--model", package)
    content = bytearray((package / "model.safetensors").read_bytes())
    content[-4:] = b"\0\0\0\0"
    (package / "model.safetensors").write_bytes(content)

    printed = evaluate(dataset, tmp_path / "o", "--model", package, code=1)

    assert "holds an evaluation of" in printed


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("MOONDREAM2_RUNTIME", "inference"),
        ("MOONDREAM2_API_URL", "http://127.0.0.1:9"),
        ("MOONDREAM2_MAX_CROPS", "1"),
    ],
)
def test_results_of_another_runtime_are_not_taken_for_these(
    dataset, evaluated, tmp_path, monkeypatch, variable, value
):
    output = shutil.copytree(evaluated[0], tmp_path / "o")
    words = ["--prompts", evaluated[0].parent / "mine.json"]
    evaluate(dataset, output, *words)

    monkeypatch.setenv(variable, value)
    printed = evaluate(dataset, output, *words, code=1)

    assert "other settings" in " ".join(printed.split())


def test_a_server_s_results_do_not_depend_on_weights_that_are_here(monkeypatch):
    monkeypatch.setenv("MOONDREAM2_API_URL", "http://me:secret@127.0.0.1:9")

    facts = runtime_facts(["moondream2-demo"])

    assert facts.keys() == {"server"}
    assert "secret" not in json.dumps(facts)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("MOONDREAM2_DTYPE", "foo"),
        ("MOONDREAM2_RUNTIME", "foo"),
        ("MOONDREAM2_DEVICE", "foo"),
        ("MOONDREAM2_API_URL", "foo"),
    ],
)
def test_invalid_settings_are_named(dataset, tmp_path, monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)

    printed = evaluate(dataset, tmp_path / "o", code=1)

    assert "Error: " in printed
    assert variable in printed
    assert not list(tmp_path.rglob("*.json*"))


def test_weights_that_cannot_be_read_are_named(dataset, tmp_path):
    (tmp_path / "package" / "model.safetensors").mkdir(parents=True)

    printed = evaluate(dataset, tmp_path / "o", "--model", tmp_path / "package", code=1)

    assert "package cannot be read" in " ".join(printed.split())


WRONG_DEFINITIONS = [
    {"inputs": None},
    {"steps": None},
    {"inputs": "image"},
    {"inputs": [None, 3, "image"]},
    {"inputs": [{"type": "WorkflowImage", "name": ["image"]}]},
    {"steps": [None]},
    {"steps": ["detection"]},
    {"steps": {"type": "workflow_blocks/moondream2_prompt_detection@v1"}},
    {"steps": [{"model_version": ["moondream2-demo"]}]},
    {"steps": [{"model_version": {"a": 1}}]},
]


@pytest.mark.parametrize("wrong", WRONG_DEFINITIONS, ids=str)
def test_models_of_wrong_definitions(wrong):
    assert models_of(detection_workflow() | wrong, {}) in ([], ["moondream2-demo"])


@pytest.mark.parametrize("wrong", WRONG_DEFINITIONS[::4], ids=str)
def test_wrong_definitions_say_what_is_wrong(dataset, tmp_path, wrong):
    file = write_json(tmp_path / "workflow.json", detection_workflow() | wrong)

    assert "Error: the workflow cannot be run" in evaluate(
        dataset, tmp_path / "o", "--workflow", file, code=1
    )


def test_models_that_steps_name_themselves_and_by_parameters():
    steps = [{"model_version": name} for name in ("$inputs.model", "other", "$inputs.no_such", "other", 5)]
    inputs = [{"name": "model", "default_value": "first"}]

    assert models_of({"inputs": inputs, "steps": steps}, {}) == ["first", "other", "$inputs.no_such"]
    assert models_of({"inputs": inputs, "steps": steps}, {"model": "given"})[0] == "given"


def test_a_run_whose_sinks_failed_can_be_repeated(dataset, tmp_path):
    """Sinks wrote to the output before anything was detected."""
    output, folder = tmp_path / "o", tmp_path / "o" / "dataset"
    words = ["--workflow", "label_a_dataset"]
    folder.parent.mkdir()
    fails = _writing_detector(folder / "images")
    images = [image.path for image in read_labelled(dataset, "valid").images]
    failed = detect_in(images, {"a": 1}, output, fails)
    assert not failed.found
    assert list((folder / "images").iterdir())

    assert detect_in(images, {"a": "mended"}, output, _working_detector).found.keys() == set(range(N_IMAGES))
    assert evaluate(dataset, output, *words, code=1).count("holds an evaluation of") == 1


def test_a_full_disk_stops_the_run(tmp_path, monkeypatch):
    images = [tmp_path / f"{number}.png" for number in range(3)]
    for image in images:
        cv2.imwrite(str(image), np.zeros((8, 8, 3), np.uint8))
    monkeypatch.setattr(detecting, "_start", lambda *_: Path("/dev/full").open("wb"))  # noqa: SIM115

    with pytest.raises(RunError, match="o cannot be written: No space left on device"):
        detect_in(images, {"a": 1}, tmp_path / "o", _working_detector)


def _writing_detector(folder):
    """Makes a detector that writes a file, as a sink does, and fails."""

    def detect(image):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "a.txt").touch()
        raise ValueError("the disk is full")

    return lambda: detect


def _working_detector():
    return lambda image: (np.zeros((0, 4)), np.zeros(0), [])


def test_another_dataset_needs_another_output(dataset, evaluated, tmp_path):
    other = shutil.copytree(dataset, tmp_path / "other")

    message = evaluate(other, evaluated[0], "--prompts", evaluated[0].parent / "mine.json", code=1)

    assert "another dataset" in " ".join(message.split())


def _no_detector():
    raise RunError("the prompts have an error")


def _failing_detector():
    def detect(image):
        raise ValueError("there is no such model")

    return detect


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("make", [_no_detector, _failing_detector])
def test_a_run_that_detects_nothing_changes_nothing(tmp_path, make, again):
    image = tmp_path / "a.png"
    cv2.imwrite(str(image), np.zeros((8, 8, 3), np.uint8))
    output = tmp_path / "output"
    if again:
        detect_in([image], {"a": 1}, output, _working_detector)
    before = {path.name: path.read_bytes() for path in output.iterdir()} if again else {}

    with contextlib.suppress(RunError):
        detect_in([image], {"a": "typo"}, output, make, again)

    assert {path.name: path.read_bytes() for path in output.iterdir()} == before
    assert detect_in([image], {"a": 1}, output, _working_detector).n_done_before == again


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--dataset", "no_such"], "no_such is not a folder"),
        (["--split", "train"], "labels of the split 'train'"),
        (["--format", "csv"], "the format is 'csv'; give coco, yolo, pascal_voc"),
        (["--format", "coco"], "is not a coco dataset"),
        (["--prompts", "no_such.json"], "no_such.json cannot be read"),
        (["--confidence", "0.5"], "parameters belong to a --workflow"),
        (["--workflow", "no_such"], "no workflow no_such"),
        (["--predictions", "boxes"], "--predictions belongs to a --workflow"),
    ],
)
def test_wrong_options_say_what_is_wrong(dataset, tmp_path, words, problem):
    message = evaluate(dataset, tmp_path / "output", *words, code=1)

    assert problem in " ".join(message.split())


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{", "is not JSON"),
        ("3", "holds no prompts"),
        ("[]", "holds no prompts"),
        ("{}", "holds no prompts"),
        ('["a", 3]', "holds no prompts"),
        ('{"": "a"}', "the class '' has the prompts"),
        ('{"a": []}', "the class 'a' has the prompts []"),
        ('{"a": {"b": "c"}}', "the class 'a' has the prompts {'b': 'c'}"),
        ('{"a b": "x", "a  b": "y"}', "two classes 'a b'"),
        ('{"prompts": {"a": "b"}, "confidence": {"a": 2}}', "`confidence` of 'a' is 2"),
        ('{"prompts": {"a": "b"}, "confidence": [1]}', "`confidence` is [1]"),
        (
            '{"prompts": {"a": "b", "c": "d"}, "confidence": {"a": 0.1, "b": 0.5, "*": 0}}',
            "prompts.json: `confidence` has a threshold for 'b', which is no class; the classes are 'a', 'c'",
        ),
        (
            json.dumps({"prompts": list(map(str, range(30))), "confidence": {"x" * 300: 0.5}}),
            "which is no class; the classes are '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', ...",
        ),
        ("[" * 100_000, "is not JSON"),
        ('{"helmet": "a", "helmet": "b"}', "prompts.json: the key 'helmet' is there twice"),
        ('{"prompts": {"a": "b"}, "confidence": {"a": 0, "a": 1}}', "prompts.json: the key 'a' is there"),
        (
            json.dumps({"a": list(map(str, range(70)))}),
            "prompts.json: the class 'a' has 70 prompts",
        ),
        ('{"a": ["b", "$inputs.x"]}', "prompts.json: the prompt '$inputs.x' of the class 'a' starts with $"),
        (json.dumps({"a": "x" * 300}), "of the class 'a' has 300 characters; at most 256 are possible"),
        (json.dumps({"x" * 300: "a"}), "has 300 characters; at most 256 are possible"),
        (json.dumps(["a", "x" * 300]), "has 300 characters; at most 256 are possible"),
    ],
)
def test_wrong_prompt_files_say_what_is_wrong(tmp_path, content, problem):
    file = tmp_path / "prompts.json"
    file.write_text(content)

    with pytest.raises(RunError, match=re.escape(problem)):
        read_prompts(file)


@pytest.mark.parametrize(
    ("value", "prompts", "thresholds"),
    [
        ("a", {"a": ("a",)}, {}),
        (["a", " b"], {"a": ("a",), "b": ("b",)}, {}),
        ({"a": ["b", "c"]}, {"a": ("b", "c")}, {}),
        ({"prompts": {"a": "b"}}, {"a": ("b",)}, {}),
        ({"prompts": ["a", "b"], "confidence": 0.5}, {"a": ("a",), "b": ("b",)}, {"a": 0.5, "b": 0.5}),
        (
            {"prompts": ["a", "b"], "confidence": {"a": 0.1, "*": 0.2}},
            {"a": ("a",), "b": ("b",)},
            {"a": 0.1, "b": 0.2},
        ),
    ],
)
def test_prompt_files(tmp_path, value, prompts, thresholds):
    assert read_prompts(write_json(tmp_path / "prompts.json", value)) == PromptFile(prompts, thresholds)


def test_more_classes_than_a_step_takes_are_searched_for_in_several():
    classes = {f"class {number}": (f"{number} a", f"{number} b") for number in range(50)}
    views = views_of(classes)

    groups = list(steps_of(views))

    assert [index for group in groups for index in group] == list(range(len(views)))
    for group in groups:
        assert len({prompt for index in group for prompt in views[index].prompts}) <= 64


def test_more_classes_than_a_step_takes_with_the_model(dataset, tmp_path):
    classes = {f"class {number}": (f"word {number}",) for number in range(70)} | {"star": ("star",)}
    images = read_labelled(dataset)
    images.images = images.images[:1]

    evaluation = evaluate_prompts(
        images, PromptFile(classes, {}), "moondream2-demo", tmp_path / "output", "Test"
    )

    assert len(evaluation.unlabelled) + len(evaluation.class_names) == 71
    assert "Test" in page(evaluation)
    assert json.dumps(as_json(evaluation))
