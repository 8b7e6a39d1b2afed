"""`workflow-blocks benchmark`: what an image costs on this machine. How fast that is is not tested."""

import re

import pytest
from typer.testing import CliRunner

from workflow_blocks.bundled_model import demo_model_folder
from workflow_blocks.commands.app import app
from workflow_blocks.commands.benchmark import _faster
from workflow_blocks.evaluation import image_seconds
from workflow_blocks.evaluation.image_seconds import ImageSeconds, Layers, crops_of, measure_package
from workflow_blocks.moondream2.config import Moondream2Config


def run(*arguments):
    return CliRunner().invoke(app, ["benchmark", *arguments], env={"COLUMNS": "100"})


def test_the_bundled_model_is_measured_by_the_settings_in_force(monkeypatch):
    monkeypatch.setenv("MOONDREAM2_MAX_CROPS", "2")

    result = run("--model", "moondream2-demo")

    assert result.exit_code == 0, result.output
    rows = re.findall(r"(\d+) x (\d+) +│ +(\d+) +│ +([\d.]+) +│ +([\d.]+) +│ +([\d.]+)", result.output)
    assert [row[:2] for row in rows] == [("640", "480"), ("1280", "720"), ("1920", "1080")]
    for *_, crops, encode, one, eight in rows:
        assert int(crops) <= 3
        assert 0 < float(encode) <= float(one)
        assert float(eight) > 0
    assert "float32 on cpu, at most 2 crops beside the whole image" in result.output
    assert "random weights" not in result.output


def test_one_crop_at_most_is_measured_too(monkeypatch):
    monkeypatch.setenv("MOONDREAM2_MAX_CROPS", "1")

    measured = measure_package(demo_model_folder())

    assert measured.max_crops == 1
    assert measured.encode(1) > 0


def test_noise_gives_no_negative_seconds():
    """Large models can be measured faster than small ones on a busy machine."""
    base = image_seconds._Parts(2.0, 1.0, {1: 2.0, 8: 2.0}, {1: 2.0, 8: 2.0})
    faster = image_seconds._Parts(1.0, 0.5, {1: 1.0, 8: 1.0}, {1: 1.0, 8: 1.0})

    measured = {Layers(1, 1): base, Layers(3, 1): faster, Layers(1, 3): faster}

    assert image_seconds._calculated(measured, Layers(27, 24)) == base
    timings = {"one crop": [2.0], "many crops": [1.0]} | {
        f"{work} {count}": [1.0] for work in ("prompt", "step") for count in image_seconds.PROMPT_COUNTS
    }
    parts = image_seconds._Parts.of(timings, (1, 5))
    assert (parts.crop, parts.image) == (0.0, 2.0)
    assert image_seconds._Parts.of(timings, (1, 1))[:2] == (2.0, 0.0)


def test_only_settings_that_are_not_in_force_are_recommended(monkeypatch):
    def seconds(dtype, max_crops):
        return ImageSeconds(dtype, "cpu", max_crops, 1.0, 0.0, {}, {}, 0.0, None)

    monkeypatch.setattr("workflow_blocks.moondream2.int8.int8_problem", lambda: None)
    assert _faster(seconds("bfloat16", 12)) == ["MOONDREAM2_DTYPE=int8", "MOONDREAM2_MAX_CROPS=4"]
    assert _faster(seconds("int8", 12)) == ["MOONDREAM2_MAX_CROPS=4"]
    assert _faster(seconds("bfloat16", 4)) == ["MOONDREAM2_DTYPE=int8"]
    assert _faster(seconds("int8", 1)) == []
    monkeypatch.setenv("MOONDREAM2_COMPILE", "true")
    assert _faster(seconds("float32", 2)) == []
    monkeypatch.delenv("MOONDREAM2_COMPILE")
    monkeypatch.setattr("workflow_blocks.moondream2.int8.int8_problem", lambda: "no instructions")
    assert _faster(seconds("float32", 2)) == []


@pytest.mark.parametrize(
    ("size", "max_crops", "crops"),
    [((378, 378), 12, 1), ((640, 480), 12, 9), ((640, 480), 1, 1), ((4000, 400), 12, 10)],
)
def test_crops_are_counted_as_the_model_cuts_them(size, max_crops, crops):
    assert crops_of(*size, Moondream2Config(), max_crops) == crops


def test_layers_that_were_not_measured_cost_as_much_as_those_that_were():
    def parts(vision, text):
        cost = 5 + 2 * vision + 3 * text
        return image_seconds._Parts(cost, 2 * cost, {1: cost, 8: 4 * cost}, {1: cost, 8: 8 * cost})

    measured = {layers: parts(*layers) for layers in (Layers(1, 1), Layers(3, 1), Layers(1, 3))}

    assert image_seconds._calculated(measured, Layers(27, 24)) == parts(27, 24)


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        (["--model", "missing"], {}, "no package missing"),
        (["--model", "/"], {}, "is not a model package"),
        ([], {"MOONDREAM2_DTYPE": "int3"}, "MOONDREAM2_DTYPE='int3'"),
    ],
)
def test_what_cannot_be_measured_is_an_error_of_one_line(monkeypatch, arguments, environment, message):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    result = run(*arguments)

    assert result.exit_code == 1
    assert message in result.output
    assert "Traceback" not in result.output


@pytest.mark.long
def test_the_released_sizes_are_calculated_without_weights():
    result = run()

    assert result.exit_code == 0, result.output
    assert "random weights" in result.output
    assert "1920 x 1080" in result.output
