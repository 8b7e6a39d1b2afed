"""The command that `make demo` runs."""

import csv
import json

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from tests.scenes import image_bgr
from workflow_blocks.commands.app import app
from workflow_blocks.commands.demo import DEFAULT_PROMPTS
from workflow_blocks.running.files import SAMPLE_IMAGES, find_files


@pytest.fixture
def run_demo(tmp_path):
    def run(*arguments):
        return CliRunner().invoke(app, ["demo", "--output", str(tmp_path / "out"), *map(str, arguments)])

    return run


def test_sample_images_give_a_table_and_files(run_demo, tmp_path):
    result = run_demo()

    assert result.exit_code == 0, result.output
    samples = find_files(SAMPLE_IMAGES)
    assert len(samples) >= 3
    for path in samples:
        assert path.name in result.output
        picture = cv2.imread(str(tmp_path / "out" / path.name / "visualization.jpg"))
        assert picture.shape == cv2.imread(str(path)).shape
        data = json.loads((tmp_path / "out" / path.name / "results.json").read_text())
        assert list(data["counts"]) == DEFAULT_PROMPTS
        assert sum(data["counts"].values()) == len(data["predictions"]["predictions"])
    (table,) = (tmp_path / "out").glob("detections_*.csv")
    rows = list(csv.DictReader(table.open()))
    assert {row["image_name"] for row in rows} <= {path.name for path in samples}
    assert len(rows) > len(samples)


def test_running_again_replaces_the_table(run_demo, tmp_path):
    for _ in range(2):
        assert run_demo("--prompt", "shape").exit_code == 0

    assert len(list((tmp_path / "out").glob("detections_*.csv"))) == 1


@pytest.mark.parametrize(
    ("source", "prompts"),
    [
        pytest.param("--input", ["--prompts", "shape", "dog"], id="as run names them"),
        pytest.param("--images", ["--prompt", "shape", "--prompt", "dog"], id="earlier names"),
    ],
)
def test_own_images_and_prompts(run_demo, tmp_path, source, prompts):
    (tmp_path / "in").mkdir()
    cv2.imwrite(str(tmp_path / "in" / "own.png"), image_bgr(0))
    (tmp_path / "in" / "notes.txt").write_text("not an image")

    result = run_demo(source, tmp_path / "in", *prompts)

    assert result.exit_code == 0, result.output
    assert "own.png" in result.output
    assert list(json.loads((tmp_path / "out" / "own.png" / "results.json").read_text())["counts"]) == [
        "shape",
        "dog",
    ]


@pytest.mark.parametrize(
    ("content", "arguments", "problem"),
    [
        pytest.param(None, [], "no image", id="no images"),
        pytest.param(b"no image", [], "bad.png: not an image", id="unreadable image"),
        pytest.param("scene", ["--prompt", " "], "give a prompt such as", id="blank prompt"),
        pytest.param("scene", ["--model", "/no/package"], "no model_config.json", id="no model"),
    ],
)
def test_errors_are_reported_in_one_line(run_demo, tmp_path, content, arguments, problem):
    folder = tmp_path / "in"
    folder.mkdir()
    if content == "scene":
        cv2.imwrite(str(folder / "scene.png"), np.zeros((64, 64, 3), np.uint8))
    elif content is not None:
        (folder / "bad.png").write_bytes(content)

    result = run_demo("--images", folder, *arguments)

    assert result.exit_code == 1
    assert problem in " ".join(result.output.split())
    assert "Traceback" not in result.output
