"""The command `workflow-blocks run`: folders of images and videos."""

import csv
import json
import shutil
from collections import Counter
from pathlib import Path

import cv2
import pytest
from typer.testing import CliRunner

from tests.scenes import image_bgr
from tests.workflows.definitions import workflow
from workflow_blocks.commands.app import app

VIDEO = Path(__file__).parents[1] / "data" / "crossing.mp4"


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        result = CliRunner().invoke(app, ["run", *map(str, arguments)])
        return result.exit_code, " ".join(result.output.split())

    return run


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    return folder


def write_images(folder, numbers):
    for number in numbers:
        cv2.imwrite(str(folder / f"{number:03}.jpg"), cv2.resize(image_bgr(number % 10), (320, 240)))


def rows_of(path):
    return list(csv.DictReader(path.open()))


@pytest.mark.parametrize("n_images", [19, pytest.param(199, marks=pytest.mark.long)])
def test_a_folder_with_a_corrupt_image_gives_the_results_of_the_others(run, folder, tmp_path, n_images):
    write_images(folder, range(n_images))
    (folder / "corrupt.jpg").write_bytes(b"\xff\xd8 no image")
    (folder / "notes.txt").write_text("no image")
    arguments = (
        "detect_visualize_export",
        "-i",
        folder,
        "--prompts",
        "shape",
        "--target_directory",
        "tables",
    )

    code, output = run(*arguments)

    assert code == 1
    assert f"{n_images} done, 1 failed" in output
    assert "corrupt.jpg: not an image that OpenCV can read" in output
    results = tmp_path / "results" / "detect_visualize_export"
    assert len(rows_of(results / "aggregated_results.csv")) == n_images
    assert json.loads((results / "failures.jsonl").read_text())["file"] == "corrupt.jpg"
    (table,) = (tmp_path / "tables").glob("*.csv")
    counts = {
        path.parent.name: json.loads(path.read_text())["counts"]["shape"]
        for path in results.glob("*/results.json")
    }
    assert sorted(counts) == [f"{number:03}.jpg" for number in range(n_images)]
    assert Counter(row["image_name"] for row in rows_of(table)) == +Counter(counts)
    assert f"shape │ {sum(counts.values())} │" in output
    assert sum(counts.values()) > n_images


def test_a_name_that_is_given_is_the_name_of_all_images(run, folder, tmp_path):
    write_images(folder, range(2))

    code, _ = run(
        *("detect_visualize_export", "-i", folder, "--prompts", "shape"),
        *("--image_name", "mine", "--target_directory", "tables"),
    )

    assert code == 0
    (table,) = (tmp_path / "tables").glob("*.csv")
    assert {row["image_name"] for row in rows_of(table)} == {"mine"}


def test_a_second_run_skips_files_that_are_done(run, folder, tmp_path):
    write_images(folder, range(3))
    (folder / "late.jpg").write_bytes(b"half copied")
    assert run("count_by_prompt", "-i", folder, "--prompts", "shape")[0] == 1
    first = tmp_path / "results" / "count_by_prompt" / "000.jpg" / "results.json"
    written = first.stat().st_mtime_ns
    write_images(folder, [3])
    shutil.copy(folder / "003.jpg", folder / "late.jpg")

    code, output = run("count_by_prompt", "-i", folder, "--prompts", "shape")

    assert code == 0
    assert "5 done, 3 of them before, 0 failed" in output
    assert first.stat().st_mtime_ns == written
    assert len(rows_of(tmp_path / "results" / "count_by_prompt" / "aggregated_results.csv")) == 5


WRONG_PARAMETERS = [
    ("label_a_dataset", "--split", "trian", "step 'dataset': `split` is 'trian'; give"),
    ("label_a_dataset", "--split", '{"train": -1}', "`split`"),
    ("count_by_prompt", "--prompts", " ", "`prompts` holds ' '; give a prompt"),
    ("label_a_dataset", "--prompts", '{"a": []}', "`prompts` holds {'a': []}; give"),
    ("label_a_dataset", "--confidence", "7", "`confidence` is 7; give"),
    (
        "label_a_dataset",
        "--confidence",
        '{"cirlce": 0.99}',
        "`confidence` has a threshold for 'cirlce'; give",
    ),
    (
        "crop_and_prompt_again",
        "--part_prompts",
        '["a", ""]',
        "`part_prompts`: step 'parts_in_crops': `prompts`",
    ),
    ("count_by_pointing", "--model", " ", "`model`: step"),
    ("tiled_small_objects", "--slice_size", "-5", "`slice_size`: step"),
]


@pytest.mark.parametrize(("name", "option", "value", "words"), WRONG_PARAMETERS)
def test_a_parameter_that_is_wrong_for_all_images_is_one_error(
    run, folder, tmp_path, name, option, value, words
):
    write_images(folder, range(2))

    code, output = run(name, "-i", folder, option, value)

    assert code == 1
    assert output.startswith("Error: ")
    assert words in output
    assert "validation error" not in output
    assert not (tmp_path / "results").exists()


def test_thresholds_of_the_classes_and_of_the_rest_are_taken(run, folder):
    write_images(folder, range(1))
    thresholds = '{"star ": 0.9, "*": 0.1}'

    code, _ = run("count_by_prompt", "-i", folder, "--prompts", "star", "circle", "--confidence", thresholds)

    assert code == 0


def test_results_of_other_parameters_are_not_mixed(run, folder):
    write_images(folder, range(1))
    run("count_by_prompt", "-i", folder, "--prompts", "shape")

    code, output = run("count_by_prompt", "-i", folder, "--prompts", "circle")
    assert code == 1
    assert "holds results of another workflow or other parameters" in output

    code, output = run("count_by_prompt", "-i", folder, "--prompts", "circle", "--again")
    assert code == 0
    assert "circle" in output
    assert "before" not in output


def test_videos_beside_images(run, folder, tmp_path):
    write_images(folder, range(1))
    shutil.copy(VIDEO, folder / "crossing.mp4")
    (folder / "corrupt.mp4").write_bytes(VIDEO.read_bytes()[:100])

    code, output = run("detect_and_visualize", "-i", folder, "--prompts", "circle")

    assert code == 1
    assert "2 done, 1 failed" in output
    assert "Failed: corrupt.mp4: " in output
    results = tmp_path / "results" / "detect_and_visualize"
    assert len(rows_of(results / "crossing.mp4" / "workflow_results_source_0.csv")) == 40
    assert (results / "001.jpg").exists() is False
    assert (results / "000.jpg" / "visualization.jpg").is_file()


def test_prompts_for_each_image(run, folder, tmp_path):
    write_images(folder, range(3))
    prompts = json.dumps({"000.jpg": ["circle"], "001.jpg": ["star", "square"]})

    code, output = run("prompts_per_image", "-i", folder, "--prompts", prompts)

    assert code == 1
    assert "002.jpg: `prompts` has no value for it" in output
    result = tmp_path / "results" / "prompts_per_image" / "001.jpg" / "results.json"
    assert list(json.loads(result.read_text())["counts"]) == ["star", "square"]


def test_a_failing_sink_fails_the_file(run, folder):
    write_images(folder, range(1))
    (folder / "occupied").write_text("a file where a folder should be")

    code, output = run("label_a_dataset", "-i", folder, "--target_directory", folder / "occupied")

    assert code == 1
    assert "000.jpg: failed: " in output


def test_an_error_status_that_is_not_of_a_sink_fails_nothing(run, folder, tmp_path, text_package):
    write_images(folder, range(1))
    ask = {
        "type": "workflow_blocks/moondream2@v1",
        "name": "ask",
        "images": "$inputs.image",
        "prompt": "How many?",
        "parse_as": "number",
        "max_tokens": 5,
        "model_version": text_package,
    }
    outputs = {"unclear": "$steps.ask.error_status", "number": "$steps.ask.output"}
    (tmp_path / "own.json").write_text(json.dumps(workflow(ask, inputs=[], outputs=outputs)))

    code, output = run("own.json", "-i", folder)

    assert code == 0, output
    results = json.loads((tmp_path / "results" / "own" / "000.jpg" / "results.json").read_text())
    assert results == {"unclear": True, "number": None}


def test_of_many_failures_the_first_are_shown(run, folder):
    for number in range(15):
        (folder / f"{number:03}.jpg").write_bytes(b"no image")

    code, output = run("count_by_prompt", "-i", folder)

    assert code == 1
    assert "0 done, 15 failed" in output
    assert "009.jpg: not an image" in output
    assert "010.jpg" not in output
    assert "and 5 more, in results/count_by_prompt/failures.jsonl" in output


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["no_such"], "no workflow no_such; name a file, or one of: alert_when_present"),
        (["broken.json"], "broken.json is not JSON"),
        (["list.json"], "list.json holds no workflow definition"),
        (["count_by_prompt", "--promts", "star"], "no parameter `promts`; it has prompts, confidence, model"),
        (["count_by_prompt", "star"], "'star' belongs to no parameter"),
        (["count_by_prompt", "--prompts"], "`prompts` is given no value"),
        (["count_by_prompt", "--model", "a", "b"], "`model` takes one value"),
        (["redact_by_prompt", "--pixel_size", "big"], "`pixel_size` is 'big'; give a value such as 16"),
        (["track_and_count_video", "--line", "[[0,"], "`line` is '[[0,'; give a list such as [[0, 240]"),
        (
            ["prompts_per_image", "--prompts", "star"],
            "`prompts` is 'star'; give an object such as {\"image.jpg\"",
        ),
        (["count_by_prompt", "-i", "nowhere"], "nowhere does not exist"),
        (["unknown_block.json"], "the workflow cannot be run"),
    ],
)
def test_invalid_arguments_are_reported_before_anything_runs(run, tmp_path, arguments, problem):
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "list.json").write_text("[]")
    step = {"type": "no_such_block@v1", "name": "step"}
    image = {"type": "InferenceImage", "name": "image"}
    unknown = {"version": "1.0", "inputs": [image], "steps": [step], "outputs": []}
    (tmp_path / "unknown_block.json").write_text(json.dumps(unknown))

    code, output = run(*arguments)

    assert code == 1
    assert problem in output
    assert "Traceback" not in output


def test_values_are_read_by_the_type_of_the_default():
    from workflow_blocks.running.definitions import read_definition
    from workflow_blocks.running.parameters import parse_parameters

    def parse(workflow, *words):
        return parse_parameters(words, read_definition(workflow))

    assert parse("count_by_prompt", "--prompts", "7", "no") == {"prompts": ["7", "no"]}
    assert parse("count_by_prompt", "--prompts=red circle", "--model=m") == {
        "prompts": ["red circle"],
        "model": "m",
    }
    assert parse("count_by_prompt", "--prompts", '["a", "b"]') == {"prompts": ["a", "b"]}
    assert parse("redact_by_prompt", "--pixel_size", "8") == {"pixel_size": 8}
    assert parse("track_and_count_video", "--line", "[0, 1]", "[2, 3]") == {"line": [[0, 1], [2, 3]]}
    assert parse("label_a_dataset", "--split", '{"train": 1}') == {"split": {"train": 1}}
