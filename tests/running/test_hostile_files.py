"""The commands `run` and `demo` over difficult files: nothing is lost, and no file stops the others."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from tests.running.test_video_files import with_index_first, write_video
from tests.scenes import image_bgr
from tests.test_image_files import FILES, encoded, png_of_size
from workflow_blocks.commands.app import app
from workflow_blocks.running.errors import RunError
from workflow_blocks.running.output import OutputFolder
from workflow_blocks.running.sink_folders import SinkFolder, sink_folders

JPEG = encoded("JPEG")


@pytest.fixture(autouse=True)
def _in_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def images(tmp_path):
    (tmp_path / "images").mkdir()
    return tmp_path / "images"


def command(*arguments):
    result = CliRunner().invoke(app, [*map(str, arguments)])
    assert "Traceback" not in result.output
    return result.exit_code, " ".join(result.output.split())


def count(*arguments):
    return command("run", "count_by_prompt", "--prompts", "shape", *arguments)


def write(path, number=0):
    cv2.imwrite(str(path), cv2.resize(image_bgr(number), (320, 240)))


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rows(output):
    return list(csv.DictReader((output / "aggregated_results.csv").open()))


def in_bytes(folder, name):
    return folder / os.fsdecode(name)


def test_no_file_stops_the_others(images, tmp_path):
    good = {
        **{f"good.{name}": JPEG for name in ("jpg", "JPG", "jfif", "jpe")},
        **{f"good.{name}": FILES[name] for name in ("png", "bmp", "webp", "tiff", "ppm")},
        "good.tif": FILES["tiff"],
        "good.gif": encoded("GIF", "P"),
        "new\nline.jpg": JPEG,
        " space.jpg": JPEG,
        "%03d [bold] :smile:.jpg": JPEG,
        "x" * 251 + ".jpg": JPEG,
        b"not \xff utf-8.jpg": JPEG,
    }
    bad = {
        **{
            f"cut.{name}": FILES[name][: len(FILES[name]) * 2 // 3] for name in ("png", "bmp", "webp", "tiff")
        },
        "cut.jpg": JPEG[: len(JPEG) * 2 // 3],
        "cut.gif": encoded("GIF", "P")[:-100],
        "bomb.png": png_of_size(40_000, 40_000),
        "empty.jpg": b"",
        "empty.mp4": b"",
        "text.jpg": b"text",
        b"bad \xff.jpg": b"text",
        b"bad \xff.mp4": b"text",
    }
    for name, content in (good | bad).items():
        in_bytes(images, name if isinstance(name, bytes) else name.encode()).write_bytes(content)
    cut = with_index_first(write_video(images / "cut.mp4"))
    cut.write_bytes(cut.read_bytes()[:-100])
    for name in ("._good.jpg", "notes.txt"):
        (images / name).write_text("no image")
    (images / "folder.jpg").mkdir()
    (images / "link.jpg").symlink_to(tmp_path / "nowhere")
    os.mkfifo(images / "pipe.jpg")

    code, output = count("-i", images)

    n_bad = len(bad) + 1
    assert code == 1
    assert f"{len(good)} done, {n_bad} failed" in output
    assert "Skipped 1 (folder): folder.jpg" in output
    assert "Skipped 1 (macOS's notes on another file): ._good.jpg" in output
    assert "Skipped 1 (not the ending of an image or video): notes.txt" in output
    assert "Skipped 1 (broken link): link.jpg" in output
    assert "Skipped 1 (not a regular file): pipe.jpg" in output
    results = tmp_path / "results" / "count_by_prompt"
    lines = [json.loads(line) for line in (results / "failures.jsonl").read_text().splitlines()]
    assert len({line["file"] for line in lines}) == n_bad
    assert all(line["cause"] for line in lines)
    assert {"cut.mp4", "bomb.png", "bad \\xff.jpg", "bad \\xff.mp4"} <= {line["file"] for line in lines}
    names = {row["image"] for row in rows(results)}
    assert len(names) == len(good)
    assert {"new\\nline.jpg", " space.jpg", "not \\xff utf-8.jpg"} <= names

    _, output = count("-i", images)

    assert f"{len(good)} done, {len(good)} of them before, {n_bad} failed" in output


def test_a_video_whose_name_is_not_utf8(images, tmp_path):
    video = write_video(images / "video.mp4")
    video.rename(in_bytes(images, b"video \xff.mp4"))

    code, output = command("run", "detect_and_visualize", "-i", images)

    assert code == 0, output
    (table,) = (tmp_path / "results").rglob("workflow_results_source_0.csv")
    assert len(list(csv.DictReader(table.open()))) == 20


def test_a_failed_sink_fails_a_video(images, tmp_path):
    write_video(images / "video.mp4")
    (tmp_path / "occupied").write_text("a file where a folder should be")

    code, output = command("run", "label_a_dataset", "-i", images, "--target_directory", "occupied")

    assert code == 1
    assert "video.mp4: failed: " in output


def test_demo_processes_all_files(images, tmp_path):
    for number in range(2):
        write(images / f"{number}.png", number)
    (images / "0.jpg").write_bytes(b"no image")
    (images / "cut.png").write_bytes(FILES["png"][:-1000])

    code, output = command("demo", "-i", images, "-o", "out")

    assert code == 1
    assert "2 done, 2 failed" in output
    assert "Failed: 0.jpg: not an image" in output
    assert "Failed: cut.png: damaged or incomplete" in output
    assert len(list((tmp_path / "out" / "dataset").rglob("*.jpg"))) == 2


def test_equal_names_in_two_folders_are_two_files(tmp_path):
    for day in (1, 2):
        (tmp_path / f"day{day}").mkdir()
        write(tmp_path / f"day{day}" / "a.jpg", day)
    found = {}
    for day in (1, 2):
        code, output = count("-i", f"day{day}", "-o", "out")
        assert code == 0
        assert "1 done, 0 failed" in output
        found[day] = output
    code, output = count("-i", "day1/../day1", "-o", "out")

    assert "1 done, 1 of them before" in output
    results = [json.loads(path.read_text())["counts"] for path in (tmp_path / "out").glob("*/results.json")]
    assert len(results) == 2
    assert results[0] != results[1]
    assert {row["input_file"] for row in rows(tmp_path / "out")} == {
        str(tmp_path / f"day{day}" / "a.jpg") for day in (1, 2)
    }
    assert found[1].partition("Results")[0] != found[2].partition("Results")[0]


def test_names_that_differ_in_case_or_ending_are_different_files(images, tmp_path):
    for number, name in enumerate(("a.jpg", "A.jpg", "a.png", "a.JPG", "run.json.jpg")):
        write(images / name, number)

    assert count("-i", images, "-o", "out")[0] == 0

    assert len(list((tmp_path / "out").glob("*/results.json"))) == 5
    assert len(rows(tmp_path / "out")) == 5


def test_a_picture_replaced_in_place_is_processed_again(images, tmp_path):
    write(images / "a.jpg", 1)
    write(images / "b.jpg", 1)
    count("-i", images, "-o", "out")
    first = json.loads((tmp_path / "out" / "a.jpg" / "results.json").read_text())["predictions"]
    before = (images / "a.jpg").stat()
    write(images / "a.jpg", 2)
    os.utime(images / "a.jpg", ns=(before.st_atime_ns, before.st_mtime_ns))

    _, output = count("-i", images, "-o", "out")

    assert "2 done, 1 of them before" in output
    assert json.loads((tmp_path / "out" / "a.jpg" / "results.json").read_text())["predictions"] != first
    assert len(rows(tmp_path / "out")) == 2

    (images / "a.jpg").write_bytes(JPEG[:-2000])
    _, output = count("-i", images, "-o", "out")

    assert "1 done, 1 of them before, 1 failed" in output
    assert not (tmp_path / "out" / "a.jpg").exists()
    assert len(rows(tmp_path / "out")) == 1


def test_removed_results_are_made_again(images, tmp_path):
    write(images / "a.jpg")
    count("-i", images, "-o", "out")
    shutil.rmtree(tmp_path / "out" / "a.jpg")

    assert "1 done, 0 failed" in count("-i", images, "-o", "out")[1]
    assert (tmp_path / "out" / "a.jpg" / "results.json").is_file()


@pytest.mark.parametrize(
    "arguments",
    [
        ("demo", "-i", "images", "-o", "images"),
        ("demo", "-i", "images/a.jpg", "-o", "images"),
        ("demo", "-i", "images", "-o", "."),
        ("demo", "-i", "link", "-o", "images"),
        ("demo", "-i", "images", "-o", "link"),
        ("demo", "-i", "links", "-o", "images"),
        ("demo", "-i", "images", "-o", "out", "--dataset_directory", "images"),
        ("run", "count_by_prompt", "-i", "images", "-o", "images"),
        ("run", "label_a_dataset", "-i", "images", "-o", "out", "--target_directory", "images/../images"),
        ("compare", "--model", "moondream2-demo", "-i", "images", "-o", "images"),
    ],
    ids=" ".join,
)
def test_outputs_that_hold_inputs_are_refused(images, tmp_path, arguments):
    for name in ("a.jpg", "a.png"):
        write(images / name)
    (images / "a.json").write_text("mine")
    (images / "detections_2025.csv").write_text("mine")
    (tmp_path / "link").symlink_to(images)
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "b.jpg").symlink_to(images / "a.jpg")
    before = contents(tmp_path)

    code, output = command(*arguments)

    assert code == 1
    assert "holds the input" in output
    assert contents(tmp_path) == before


def test_a_folder_in_the_definition_that_holds_inputs_is_refused(images):
    write(images / "a.jpg")
    definition = json.loads((Path(__file__).parents[2] / "workflows" / "label_a_dataset.json").read_text())
    definition["steps"][1]["target_directory"] = "images"
    Path("mine.json").write_text(json.dumps(definition))

    code, output = command("run", "mine.json", "-i", images)

    assert code == 1
    assert "holds the input" in output


def test_compare_keeps_files_of_others(images, tmp_path):
    write(images / "a.jpg")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "comparison_a.jpg").write_text("mine")

    code, output = command("compare", "--model", "moondream2-demo", "-i", images, "-o", "out")

    assert code == 1
    assert "choose another --output" in output
    assert contents(tmp_path / "out") == {Path("comparison_a.jpg"): b"mine"}


def test_results_may_be_in_a_folder_among_the_inputs(images):
    write(images / "a.jpg")

    assert count("-i", images, "-o", images / "out")[0] == 0


def test_files_of_others_are_kept(images, tmp_path):
    """Also by `--again` and by `demo`, which remove the earlier results."""
    write(images / "a.jpg", 1)
    write(images / "b.jpg", 2)
    theirs = {
        name: f"theirs: {name}"
        for name in ("detections_2025.csv", "a.json", "notes/a.txt", "a.jpg/visualization.jpg", "b.jpg")
    }
    for name, text in theirs.items():
        (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / name).write_text(text)

    for _ in range(2):
        code, output = command("demo", "-i", images, "-o", "out")
        assert code == 0, output
        (tmp_path / "out" / "dataset" / "mine.txt").write_text("theirs: dataset/mine.txt")
        theirs["dataset/mine.txt"] = "theirs: dataset/mine.txt"
    (images / "b.jpg").unlink()
    assert command("demo", "-i", images, "-o", "out")[0] == 0

    for name, text in theirs.items():
        assert (tmp_path / "out" / name).read_text() == text
    assert len(list((tmp_path / "out").glob("*/results.json"))) == 1
    assert len(list((tmp_path / "out").glob("detections_*.csv"))) == 2  # theirs, and one of the last demo
    annotations = json.loads((tmp_path / "out/dataset/train/_annotations.coco.json").read_text())
    assert len(annotations["images"]) == 1


@pytest.mark.parametrize(
    "name",
    [
        *("run.json", "progress.jsonl", "progress.log", "aggregated_results.csv", "failures.jsonl"),
        "dataset/a",
    ],
)
def test_a_folder_with_a_file_of_others_in_the_way_is_refused(images, tmp_path, name):
    write(images / "a.jpg")
    (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "out" / name).write_text("{}")
    before = contents(tmp_path)

    code, output = command("demo", "-i", images, "-o", "out")

    assert code == 1
    assert "give another --output" in output
    assert contents(tmp_path) == before


@pytest.mark.parametrize("output", ["occupied", "occupied/out", "x" * 300, os.fsdecode(b"out\xff")])
def test_an_output_that_cannot_be_used_is_refused(images, tmp_path, output):
    write(images / "a.jpg")
    (tmp_path / "occupied").write_text("mine")

    code, printed = count("-i", images, "-o", output)

    assert code == 1
    assert "give another --output" in printed
    assert (tmp_path / "occupied").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["x" * 300], "File name too long"),
        (["count_by_prompt", "-i", "x" * 300], "File name too long"),
        (["count_by_prompt", "-i", "missing"], "missing does not exist"),
        (["count_by_prompt", "-i", "missing.jpg"], "missing.jpg does not exist"),
        (["count_by_prompt", "-i", os.devnull], "neither a folder nor a file"),
    ],
    ids=["workflow", "input", "folder", "file", "device"],
)
def test_what_does_not_exist_is_said_in_one_line(arguments, problem):
    code, output = command("run", *arguments)

    assert code == 1
    assert problem in output


def test_again_leaves_no_earlier_results(images, tmp_path):
    write(images / "a.jpg", 1)
    write(images / "b.jpg", 2)
    assert command("run", "detect_visualize_export", "-i", images, "-o", "out")[0] == 0
    (images / "b.jpg").unlink()

    code, _ = command("run", "redact_by_prompt", "-i", images, "-o", "out", "--again")

    assert code == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        *("a.jpg", "aggregated_results.csv", "failures.jsonl", "progress.jsonl", "run.json")
    ]
    assert sorted(path.name for path in (tmp_path / "out" / "a.jpg").iterdir()) == [
        *("redacted.jpg", "results.json")
    ]


def test_a_failed_first_run_does_not_block_the_corrected_one(images, tmp_path):
    write(images / "a.jpg")
    definition = json.loads((Path(__file__).parents[2] / "workflows" / "count_by_prompt.json").read_text())
    definition["steps"][0]["type"] = "no_such_block@v1"
    (tmp_path / "mine.json").write_text(json.dumps(definition))
    code, output = command("run", "mine.json", "-i", images)
    assert code == 1
    assert "step 'detection': there is no type 'no_such_block@v1'" in output

    definition["steps"][0]["type"] = "workflow_blocks/moondream2_prompt_detection@v1"
    (tmp_path / "mine.json").write_text(json.dumps(definition))
    assert command("run", "mine.json", "-i", images, "--prompts", " ")[0] == 1

    assert command("run", "mine.json", "-i", images, "--prompts", "star")[0] == 0


def test_a_workflow_writes_into_the_output(images, tmp_path):
    write(images / "a.jpg")

    assert command("run", "detect_visualize_export", "-i", images, "-o", "out")[0] == 0
    assert command("run", "label_a_dataset", "-i", images, "--split", "train")[0] == 0

    assert {path.name for path in tmp_path.iterdir()} == {"images", "out", "results"}
    assert len(list((tmp_path / "out" / "detections").glob("*.csv"))) == 1
    assert (tmp_path / "results/label_a_dataset/dataset/data.yaml").is_file()
    assert len(list((tmp_path / "results/label_a_dataset/dataset/train/images").iterdir())) == 1


def test_prompts_joined_with_commas_get_a_hint(images):
    write(images / "a.jpg")

    _, output = command("run", "count_by_prompt", "-i", images, "--prompts", "circle, blue star")
    assert 'For several prompts write --prompts "circle" "blue star"' in output

    _, output = command("run", "count_by_prompt", "-i", images, "--prompts", "circle", "--again")
    assert "For several prompts" not in output


def test_throttled_alerts_are_counted(images):
    for number in range(3):
        write(images / f"{number}.jpg", number)
    definition = json.loads((Path(__file__).parents[2] / "workflows" / "label_a_dataset.json").read_text())
    definition["steps"][1]["cooldown_seconds"] = 600
    selector = "$steps.dataset.throttling_status"
    definition["outputs"].append({"type": "JsonField", "name": "throttled", "selector": selector})
    Path("mine.json").write_text(json.dumps(definition))

    code, output = command("run", "mine.json", "-i", images)

    assert code == 0, output
    assert "throttled in 2 of 3: Sink cooldown applies" in output


def test_a_killed_run_is_continued(images, tmp_path):
    for number in range(40):
        write(images / f"{number:02}.jpg", number % 10)
    arguments = ["run", "count_by_prompt", "-i", "images", "-o", "out"]
    killed = subprocess.Popen(
        [sys.executable, "-m", "workflow_blocks", *arguments], cwd=tmp_path, stdout=subprocess.DEVNULL
    )
    while len(list((tmp_path / "out").glob("*/results.json"))) < 3:
        assert killed.poll() is None
    killed.kill()
    killed.wait()

    code, output = command(*arguments)

    assert code == 0
    assert "40 done" in output
    assert "of them before" in output
    assert len(list((tmp_path / "out").glob("*/results.json"))) == 40
    assert {path.name for path in (tmp_path / "out").glob("*.jpg")} == {f"{n:02}.jpg" for n in range(40)}
    assert len(rows(tmp_path / "out")) == 40


def in_folder(folder):
    """The files below a folder, by their place in it."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("is_continued", [False, True])
def test_of_what_a_killed_run_left_nothing_is_removed_or_mixed(images, tmp_path, is_continued):
    """Its steps may have made these files, or a user."""
    out, sinks = tmp_path / "out", [SinkFolder(tmp_path / "out" / "dataset")]
    (out / "dataset").mkdir(parents=True)
    (out / "dataset" / "mine.txt").write_bytes(b"mine")
    with pytest.raises(RunError):
        OutputFolder(out, sinks)
    (out / "dataset" / "mine.txt").unlink()
    OutputFolder(out, sinks).open({"parameters": 1}, again=False)
    (out / "dataset" / "a" / "empty").mkdir(parents=True)
    (out / "dataset" / "a" / "unknown.txt").write_bytes(b"whose?")
    if is_continued:
        going_on = OutputFolder(out, sinks)
        assert going_on.open({"parameters": 1}, again=False) is None
        assert (out / "dataset" / "a" / "unknown.txt").exists()
        (out / "dataset" / "made.txt").write_bytes(b"by this run")
        going_on.note_files_of_sinks()

    aside = OutputFolder(out, sinks).open({"parameters": 1}, again=True)

    assert aside == out / "of_a_killed_run"
    assert in_folder(aside) == {"dataset/a/unknown.txt": b"whose?"}
    assert not (out / "dataset").exists()
    (out / "dataset").mkdir()
    (out / "dataset" / "again.txt").write_bytes(b"whose?")
    assert OutputFolder(out, sinks).open({"parameters": 2}, again=True) == out / "of_a_killed_run.2"
    OutputFolder(out, sinks).note_files_of_sinks()
    assert OutputFolder(out, sinks).open({"parameters": 2}, again=True) is None


@pytest.mark.parametrize("is_killed", [False, True])
def test_files_of_the_user_beside_those_of_a_sink_stay(tmp_path, is_killed):
    """The sample job writes its table into the output folder itself."""
    sinks = [SinkFolder(tmp_path, "detections"), SinkFolder(tmp_path / "dataset")]
    run = OutputFolder(tmp_path, sinks)
    run.open({}, again=False)
    theirs = ["notes.txt", "detections.csv", "detections_mine.csv", "detections_2026.csv", "of_mine/a.csv"]
    (tmp_path / "of_mine").mkdir()
    for name in theirs:
        (tmp_path / name).write_bytes(b"of the user")
    made = tmp_path / "detections_2026_12_01_10_20_30_123456.csv"
    made.write_bytes(b"of the sink")
    if not is_killed:
        run.note_files_of_sinks()

    aside = OutputFolder(tmp_path, sinks).open({}, again=True)

    assert not made.exists()
    assert all((tmp_path / name).read_bytes() == b"of the user" for name in theirs)
    assert (aside is not None) == is_killed
    assert not is_killed or in_folder(aside) == {made.name: b"of the sink"}


def test_the_folders_of_sinks():
    inputs = [
        {"type": "WorkflowParameter", "name": "folder", "default_value": "tables"},
        {"type": "WorkflowParameter", "name": "prefix", "default_value": "found"},
        {"type": "WorkflowParameter", "name": "none"},
    ]
    sink = {"type": "roboflow_core/local_file_sink@v1", "target_directory": "$inputs.folder"}
    steps = [
        sink,
        sink | {"file_name_prefix": "$inputs.prefix", "target_directory": "fixed"},
        {"type": "mine", "a_directory": "$inputs.none", "b_directory": 5, "c_directory": "$steps.a.b"},
        {"type": "mine", "a_directory": "~/mine", "file_name_prefix": "no"},
        None,
    ]
    definition = {"inputs": inputs, "steps": steps}

    assert sink_folders(definition, {}) == [
        SinkFolder(Path("tables"), "workflow_output"),
        SinkFolder(Path("fixed"), "found"),
        SinkFolder(Path.home() / "mine"),
    ]
    assert sink_folders(definition, {"folder": "given", "prefix": "p"})[:2] == [
        SinkFolder(Path("given"), "workflow_output"),
        SinkFolder(Path("fixed"), "p"),
    ]
    assert sink_folders({"steps": None}, {}) == []


def test_a_picture_too_wide_for_jpeg_fails_its_file(images):
    cv2.imwrite(str(images / "wide.png"), np.zeros((2, 70_000, 3), np.uint8))
    write(images / "a.jpg")

    code, output = count("-i", images)

    assert code == 1
    assert "1 done, 1 failed" in output
    assert "Failed: wide.png: " in output


@pytest.mark.parametrize(
    "line",
    [
        {"file": "/a", "results": "../victim"},
        {"file": "/a", "results": "", "made": None},
        {"file": "/a", "results": "."},
        {"file": "/a", "results": "/tmp"},
        {"file": "/a", "results": "a/b"},
        {"file": "/a", "results": None, "made": ["x"]},
        {"file": "/a", "results": "a", "made": ["../../victim/theirs.txt"]},
        {"file": "/a", "results": "a", "made": "x"},
        {"file": ["/a"], "results": "a"},
        {"sink_files": ["../victim/theirs.txt"]},
        {"sink_files": ["/victim/theirs.txt"]},
        {"sink_files": "theirs.txt"},
        {"sink_folders": [], "files_of_others": [], "files_of_unknown": ["../victim/theirs.txt"]},
        [],
        7,
        "file",
    ],
    ids=str,
)
def test_a_record_that_names_files_of_others_is_refused(tmp_path, line):
    victim = tmp_path / "victim" / "theirs.txt"
    (tmp_path / "out").mkdir()
    victim.parent.mkdir()
    victim.write_text("theirs")
    (tmp_path / "out" / "user.txt").write_text("theirs")
    (tmp_path / "out" / "progress.jsonl").write_text(json.dumps(line))

    with pytest.raises(RunError, match="is not of a run"):
        OutputFolder(tmp_path / "out").open({}, again=True)

    assert victim.exists()
    assert (tmp_path / "out" / "user.txt").exists()


def test_a_record_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "progress.jsonl").write_bytes(b"\xff\xfe")

    with pytest.raises(RunError, match="is not of a run"):
        OutputFolder(tmp_path)
