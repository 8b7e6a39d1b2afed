"""The commands of `README.md` and `workflows/README.md`, run as they are written there."""

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import cv2
import pytest
from typer.testing import CliRunner

from workflow_blocks.commands.app import app as workflow_blocks_app
from workflow_blocks.inference_host.engine import PLUGIN_SETTINGS
from workflow_blocks.running.files import SAMPLE_IMAGES

ROOT = Path(__file__).parents[2]
FRONT_PAGE = (ROOT / "README.md").read_text()
README = (ROOT / "workflows" / "README.md").read_text()
SECTION = re.compile(r"^## (\w+)\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r"```bash\n(.*?)```", re.DOTALL)
COMMANDS = {name: blocks for name, text in SECTION.findall(README) if len(blocks := BLOCK.findall(text)) == 2}
# The rows whose command is `workflow-blocks run`.
USE_CASES = re.findall(r"^\| [^|`]+ \| `(\w+ --[^`]+)`", README, re.MULTILINE)
SETTINGS = next(block for block in re.findall(r"```\n(.*?)```", README, re.DOTALL) if "post()" in block)
# The commands of the front page; a line that ends with `|` goes on in the next one.
FRONT_PAGE_COMMANDS = "".join(BLOCK.findall(FRONT_PAGE)).replace("|\n", "| ").splitlines()
RUN_HERE = ("make demo", ".venv/bin/workflow-blocks demo", ".venv/bin/workflow-blocks run", "echo")
NOT_RUN_HERE = {
    "git clone": "the address is the reader's",
    "make test": "these tests are what it runs",
    ".venv/bin/workflow-blocks serve": "the fixture `server` starts it, on a free port",
    ".venv/bin/workflow-blocks build-model": "downloads 4 GB; tests/inference_host builds from local weights",
}


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A working directory that has what a clone has after `make` created its environment."""
    for name in ("workflows", "workflow_blocks", "examples", "constraints", "pyproject.toml", "Makefile"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "bin").symlink_to(Path(sys.executable).parent)
    (tmp_path / ".venv" / ".ready").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def own_folder(clone):
    """The user's images, in the clone."""
    return shutil.copytree(SAMPLE_IMAGES, clone / "my_folder")


@pytest.fixture
def alerts():
    """What `receive_alerts.py` prints."""
    receiver = subprocess.Popen(
        [sys.executable, str(ROOT / "examples" / "receive_alerts.py")], stdout=subprocess.PIPE, text=True
    )
    try:
        wait_for_port(8000)
        yield receiver.stdout
    finally:
        receiver.kill()
        receiver.wait()


def wait_for_port(port):
    """Waits until a server on loopback listens there."""
    end = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.02)


def outputs_of(name):
    return {
        output["name"] for output in json.loads((ROOT / "workflows" / f"{name}.json").read_text())["outputs"]
    }


def front_page_command(start):
    (command,) = [line for line in FRONT_PAGE_COMMANDS if line.startswith(start)]
    return command


def run_in_shell(script):
    """What a script prints, without settings that this process has made."""
    environment = {name: value for name, value in os.environ.items() if name not in PLUGIN_SETTINGS}
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run_our_command_line(command):
    """What `workflow-blocks` prints, in this process: a new one needs half a minute for its imports."""
    program, *arguments = shlex.split(command)
    assert Path(program).name == "workflow-blocks"
    result = CliRunner().invoke(workflow_blocks_app, arguments)
    assert result.exit_code == 0, result.output
    return result.output


def run_command_line(block):
    """Runs Inference's command line in this process, for the same reason."""
    from inference_cli.main import app

    for line in block.replace("\\\n", " ").splitlines():
        if line.startswith("inference "):
            result = CliRunner().invoke(app, shlex.split(line)[1:])
            assert result.exit_code == 0, result.output
        else:
            subprocess.run(["bash", "-c", line], check=True)


def post(script, address):
    return json.loads(run_in_shell(script.replace("http://127.0.0.1:9001", address)))


def test_every_command_of_the_front_page_is_run_or_named_with_a_reason():
    starts = [*RUN_HERE, *NOT_RUN_HERE]

    assert len(FRONT_PAGE_COMMANDS) == len(starts)
    assert all(front_page_command(start) for start in starts)


def assert_demo_output(clone, printed):
    output = clone / "demo_output"
    samples = list(SAMPLE_IMAGES.glob("*.jpg"))
    assert samples
    assert all(path.name in printed for path in samples)
    assert len(list(output.rglob("*.jpg"))) >= 2 * len(samples)  # with boxes, and in the dataset
    assert list(output.rglob("*.csv"))
    assert list(output.rglob("_annotations.coco.json"))


def test_the_command_of_make_demo(clone):
    make_demo = front_page_command("make demo").partition("#")[0]
    # Inside `make test`, make would also print the directory.
    (command,) = run_in_shell(f"{make_demo} --dry-run --no-print-directory").splitlines()

    assert_demo_output(clone, run_our_command_line(command))


@pytest.mark.long
def test_make_demo(clone):
    assert_demo_output(clone, run_in_shell(front_page_command("make demo")))


def test_demo_with_own_images_and_prompts(own_folder):
    printed = run_our_command_line(front_page_command(".venv/bin/workflow-blocks demo"))

    assert all(path.name in printed for path in own_folder.iterdir())
    assert "soccer ball" in printed
    assert "wine glass" not in printed


def test_the_definition_of_the_front_page(clone, own_folder):
    (definition,) = re.findall(r"```json\n(.*?)```", FRONT_PAGE, re.DOTALL)
    (clone / "my_workflow.json").write_text(definition)

    run_our_command_line(front_page_command(".venv/bin/workflow-blocks run"))

    results = clone / "results" / "my_workflow"
    found = [json.loads((results / path.name / "results.json").read_text()) for path in own_folder.iterdir()]
    assert all(result["counts"].keys() == {"elephant", "car"} for result in found)
    assert any(result["counts"]["elephant"] for result in found)


def test_the_request_of_the_front_page(own_folder, clone, server, run_workflow):
    shutil.copy(own_folder / "zoo.jpg", clone / "photo.jpg")
    definition = json.loads((ROOT / "workflows" / "count_by_prompt.json").read_text())
    (here,) = run_workflow(definition, image=cv2.imread(str(clone / "photo.jpg")), prompts=["elephant"])

    (result,) = post(front_page_command("echo"), server)["outputs"]

    assert result["counts"] == here["counts"]
    assert result["counts"]["elephant"] > 0


def test_every_definition_that_the_bundled_model_runs_has_both_commands():
    definitions = {path.stem for path in (ROOT / "workflows").glob("*.json")}

    assert definitions - set(COMMANDS) == {"segment_by_prompt"}


def test_every_definition_has_a_section():
    sections = {name for name, _ in SECTION.findall(README)}

    assert {path.stem for path in (ROOT / "workflows").glob("*.json")} <= sections


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - {"track_and_count_video", "alert_when_present"}))
def test_the_command_line(clone, name):
    run_command_line(COMMANDS[name][0])

    results = list((clone / "results" / "cli" / name).glob("*/results.json"))
    assert len(results) == (1 if name == "prompts_per_image" else 4)
    for result in results:
        assert set(json.loads(result.read_text())) == outputs_of(name)


def test_the_command_line_over_a_video(clone):
    run_command_line(COMMANDS["track_and_count_video"][0])

    folder = clone / "results" / "cli" / "track_and_count_video"
    assert (folder / "source_0_output_visualization_preview.mp4").stat().st_size > 10_000
    last = (folder / "workflow_results_source_0.csv").read_text().splitlines()[-1]
    assert ",1,2,<deducted_image>" in last


def test_the_command_line_sends_an_alert(clone, alerts):
    run_command_line(COMMANDS["alert_when_present"][0])

    assert re.match(r"Alert: {'elephant': \d}, with a picture of \d+ bytes", alerts.readline())


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - {"alert_when_present"}))
def test_the_request(clone, server, name):
    (result,) = post(SETTINGS + COMMANDS[name][1], server)["outputs"]

    assert set(result) == outputs_of(name)
    assert not any(result.get(failed) for failed in ("failed", "export_failed", "dataset_failed"))


def test_the_request_sends_an_alert(clone, server, alerts):
    (result,) = post(SETTINGS + COMMANDS["alert_when_present"][1], server)["outputs"]

    assert result["alert_failed"] is False
    assert alerts.readline().startswith("Alert: {'elephant': ")


def test_every_definition_but_one_is_a_use_case():
    assert sorted(line.split()[0] for line in USE_CASES) == sorted(COMMANDS)


def run_use_case(clone, line):
    printed = run_our_command_line(f"workflow-blocks run {line}")

    assert " done, 0 failed" in printed
    assert any((clone / "results" / line.split()[0]).glob("*/*"))


@pytest.mark.parametrize(
    "line", [line for line in USE_CASES if "alert" not in line], ids=lambda line: line.split()[0]
)
def test_a_use_case(clone, line):
    run_use_case(clone, line)


def test_the_use_case_sends_an_alert(clone, alerts):
    (line,) = [line for line in USE_CASES if line.startswith("alert_when_present")]

    run_use_case(clone, line)

    assert alerts.readline().startswith("Alert: {'elephant': ")
