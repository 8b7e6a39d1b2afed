"""Comparing both classes. Python files of ours, `own_class`, replace those of the released weights."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from tests.commands.own_class.changes import changed
from workflow_blocks.commands.app import app
from workflow_blocks.evaluation import comparison
from workflow_blocks.evaluation.box_agreement import Box
from workflow_blocks.evaluation.comparison import run_in_own_process
from workflow_blocks.evaluation.measure import PROMPT_COUNTS, Failure, Job, Measured

SAMPLES = Path(__file__).parents[1] / "data" / "samples"
OWN_CLASS = Path(__file__).parent / "own_class"
DEMO_PACKAGE = Path(comparison.__file__).parents[1] / "demo_model"


@pytest.fixture
def package(tmp_path):
    """The bundled model with Python files, which are links as in Inference's own store of packages."""
    folder = tmp_path / "package"
    shutil.copytree(DEMO_PACKAGE, folder)
    for file in OWN_CLASS.glob("*.py"):
        (folder / file.name).symlink_to(file)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "torch_dtype": "bfloat16"}))
    return folder


@pytest.fixture
def run_compare(tmp_path):
    def run(*arguments):
        arguments = ["compare", "--output", tmp_path / "out", *arguments]
        return CliRunner().invoke(app, list(map(str, arguments)), env={"COLUMNS": "140"})

    return run


def files_of(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.long
def test_both_classes_are_compared(package, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    for name in ("clutter.jpg", "stars.jpg"):
        shutil.copy(SAMPLES / name, images / name)
    before, out = files_of(package), tmp_path / "out"

    command = [sys.executable, "-m", "workflow_blocks", "compare", "--model", str(package), "-o", str(out)]
    prompts = ["red circle", "blue star", "square", "yellow shape"]
    done = subprocess.run(
        [*command, "--images", str(images), "--prompts", *prompts],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "140"},
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "Python prints" not in done.stdout + done.stderr
    assert "Python prints" in (out / "inference_class.log").read_text()
    assert files_of(package) == before
    result = json.loads((out / "comparison.json").read_text())
    inference, (plugin, default) = result["inference"], result["plugin"]
    assert (inference["dtype"], plugin["dtype"], default["dtype"]) == ("bfloat16", "bfloat16", "float32")
    assert inference["python_files"] == ["changes.py", "hf_moondream.py", "rope.py"]
    assert plugin["python_files"] == default["python_files"] == []
    for measured in (inference, plugin, default):
        assert measured["seconds"].keys() == set(map(str, PROMPT_COUNTS))
        assert all(0 < seconds < 100 for seconds in measured["seconds"].values())
        assert 2**28 < measured["memory"] < 2**34

    counts = {prompt: [] for prompt in prompts}
    for boxes in plugin["found"]:
        for prompt in prompts:
            counts[prompt].append(sum(box["prompt"] == prompt for box in boxes))
    red, blue, square, yellow = (sum(counts[prompt]) for prompt in prompts)
    assert min(red, blue, square, yellow) > 0
    rows = {
        # Inference's class, this plugin, agree, missed, added
        "red circle": [red, red, red, 0, 0],
        "blue star": [blue, blue, 0, blue, blue],
        "square": [0, square, 0, 0, square],
        "yellow shape": [yellow + 2, yellow, yellow, 2, 0],
    }
    rows["all"] = [sum(column) for column in zip(*rows.values(), strict=True)]
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in done.stdout.splitlines()]
    shown = {cells[0]: cells[1:] for cells in lines if cells}
    for name, row in rows.items():
        assert shown[name][:5] == list(map(str, row)), name
    assert float(shown["red circle"][5]) == pytest.approx(0.8, abs=0.05)
    assert shown["confidence"][0] == "always 1.00"
    assert shown["package's Python"] == ["changes.py", "none ran", "none ran"]
    for count in ("1 prompt", "4 prompts", "8 prompts"):
        assert all("x)" in cell for cell in shown[f"time, {count}"][1:])
    for name in ("clutter.jpg", "stars.jpg"):
        picture = cv2.imread(str(out / f"comparison_{name}"))
        assert picture.shape[1] > 2 * 700


def test_the_stand_in_changes_boxes_as_the_tests_assume():
    class Found:
        x_min, y_min, x_max, y_max = 0.0, 0.0, 1.0, 1.0

    assert changed("dog", [Found]) == [{"x_min": 0.0, "y_min": 0.0, "x_max": 1.0, "y_max": 1.0}]
    assert changed("blue star", [Found])[0]["x_max"] < 0.5


@pytest.mark.long
def test_a_class_that_cannot_be_imported_is_a_failure(tmp_path):
    (tmp_path / "hf_moondream.py").write_text("import no_such_module\n")
    job = Job("inference", tmp_path, [], ["dog"], None, tmp_path / "log")

    failure = run_in_own_process(job)

    assert failure == Failure("ModuleNotFoundError", "No module named 'no_such_module'")
    assert "hf_moondream.py" in job.log.read_text()


def die(job, results):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_that_dies_is_a_failure(monkeypatch, tmp_path):
    monkeypatch.setattr(comparison, "run_job", die)

    failure = run_in_own_process(Job("plugin", tmp_path, [], ["dog"], None, tmp_path / "log"))

    assert failure == Failure("", "its process ended with signal 9 (often too little memory)")


@pytest.fixture
def outcomes(monkeypatch):
    """What the processes report, by model class and dtype, instead of running them; and the jobs they got."""
    outcomes, jobs = {}, []

    def run(job):
        jobs.append((job.model_class, job.dtype))
        return outcomes[job.model_class, job.dtype]

    monkeypatch.setattr(comparison, "run_in_own_process", run)
    return outcomes, jobs


def measured(dtype, n_images=4):
    boxes = [Box(0, (1.0, 1.0, 50.0, 50.0), 0.5)]
    seconds = dict.fromkeys(PROMPT_COUNTS, 1.0)
    return Measured([boxes] * n_images, seconds, 1.0, 2**30, None, "cpu", dtype, "float32", [])


def test_a_package_without_own_code_shows_ours_alone(run_compare, outcomes, tmp_path):
    results, jobs = outcomes
    results["plugin", None] = measured("float32")

    done = run_compare("--model", "moondream2-demo")

    assert done.exit_code == 0, done.output
    assert jobs == [("plugin", None)]
    assert "Inference's class did not run: the package has no hf_moondream.py" in done.output
    assert "this plugin" in done.output
    assert "missed" not in done.output
    assert len(list((tmp_path / "out").glob("comparison_*.jpg"))) == 4


def test_a_bad_image_and_odd_names_cost_nothing_else(run_compare, outcomes, tmp_path):
    results, _ = outcomes
    results["plugin", None] = measured("float32", n_images=2)
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "bad.png").write_bytes(b"no image")
    for name in (os.fsdecode(b"caf\xe9.png"), "n" * 230 + ".png"):
        (folder / name).write_bytes(cv2.imencode(".png", np.zeros((90, 90, 3), np.uint8))[1].tobytes())

    done = run_compare("--model", "moondream2-demo", "--input", folder)

    assert done.exit_code == 1
    assert "Failed: bad.png: not an image" in done.output
    assert len(list((tmp_path / "out").glob("comparison_*.png"))) == 2


def test_a_comparison_of_others_is_kept(run_compare, outcomes, tmp_path):
    (tmp_path / "out").mkdir()
    for name in ("comparison.json", "plugin.log"):
        (tmp_path / "out" / name).write_text("{}")

        done = run_compare("--model", "moondream2-demo")

        assert done.exit_code == 1
        assert "holds files that no comparison has made" in " ".join(done.output.split())
        assert (tmp_path / "out" / name).read_text() == "{}"
        (tmp_path / "out" / name).unlink()


def test_a_comparison_that_failed_can_be_repeated(run_compare, outcomes, tmp_path):
    """Its log is all that it wrote."""
    out = tmp_path / "out"
    (tmp_path / "package").mkdir()
    out.mkdir()
    job = Job("plugin", tmp_path / "package", [], ["dog"], None, out / "plugin.log")
    assert isinstance(run_in_own_process(job), Failure)
    assert job.log.stat().st_size
    results, _ = outcomes
    results["plugin", None] = measured("float32")

    done = run_compare("--model", "moondream2-demo")

    assert done.exit_code == 0, done.output
    assert (out / "comparison.json").exists()


def test_own_code_that_fails_is_named_with_the_reason(run_compare, outcomes, package):
    results, jobs = outcomes
    results["plugin", "bfloat16"], results["plugin", "float32"] = measured("bfloat16"), measured("float32")
    results["inference", None] = Failure("ModelRuntimeError", "This model cannot run on [MPS]")

    done = run_compare("--model", package)

    assert done.exit_code == 0, done.output
    assert jobs[0] == ("plugin", "bfloat16")
    assert "did not run: ModelRuntimeError: This model cannot run on [MPS]; see" in done.output
    assert "float32" in done.output


def test_a_package_that_ours_refuses_is_an_error_before_own_code_runs(run_compare, outcomes, package):
    results, jobs = outcomes
    results["plugin", "bfloat16"] = Failure("CheckpointError", "model.safetensors is damaged")

    done = run_compare("--model", package)

    assert done.exit_code == 1
    assert jobs == [("plugin", "bfloat16")]
    assert "model.safetensors is damaged" in done.output
    assert "Traceback" not in done.output


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        pytest.param(["--model", "/no/package"], "no package /no/package", id="no package"),
        pytest.param(["--model", "{empty}"], "has no config.json", id="not a package"),
        pytest.param(["--input", "/no/images"], "/no/images does not exist", id="no folder"),
        pytest.param(["--input", "{empty}"], "no image", id="no images"),
        pytest.param(["--images", "{videos}"], "no image (.bmp", id="only a video"),
        pytest.param(["--input", "{broken}"], "is not an image", id="an unreadable image"),
        pytest.param(["--prompts", "dog", " "], "`prompts` has ' '", id="a blank prompt"),
        pytest.param(["--prompts", "[1]"], "`prompts` has 1", id="a prompt that is no text"),
        pytest.param(["dog"], "write --prompts 'dog'", id="a prompt without its option"),
        pytest.param(["--output", "{broken}/bad.png/out"], "choose another --output", id="no output folder"),
    ],
)
def test_errors_are_one_line_and_come_before_any_process(run_compare, outcomes, tmp_path, arguments, problem):
    folders = {name: tmp_path / name for name in ("empty", "videos", "broken")}
    for folder in folders.values():
        folder.mkdir()
    (folders["videos"] / "film.mp4").write_bytes(b"")
    (folders["broken"] / "bad.png").write_bytes(b"no image")
    words = [word.format(**folders) for word in arguments]

    done = run_compare(*([] if "--model" in words else ["--model", "moondream2-demo"]), *words)

    assert done.exit_code == 1, done.output
    assert problem in done.output
    assert len(done.output.strip().splitlines()) == 1
    assert outcomes[1] == []


@pytest.mark.parametrize("size", [(30, 1000), (1000, 30), (3, 3)], ids=str)
def test_images_of_every_shape_get_a_picture(run_compare, outcomes, tmp_path, size):
    cv2.imwrite(str(tmp_path / "image.png"), np.zeros((*size, 3), np.uint8))
    outcomes[0]["plugin", None] = measured("float32", n_images=1)

    done = run_compare("--model", "moondream2-demo", "-i", tmp_path / "image.png", "--prompts", "dog")

    assert done.exit_code == 0, done.output
    assert cv2.imread(str(tmp_path / "out" / "comparison_image.png")).shape[1] == 720
