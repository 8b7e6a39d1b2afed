"""The commands of `workflows/README.md` and the use cases of `README.md`, as they are written there."""

import json
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from workflow_blocks.commands.app import app as workflow_blocks_app

ROOT = Path(__file__).parents[2]
README = (ROOT / "workflows" / "README.md").read_text()
SECTION = re.compile(r"^## (\w+)\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r"```bash\n(.*?)```", re.DOTALL)
COMMANDS = {name: blocks for name, text in SECTION.findall(README) if len(blocks := BLOCK.findall(text)) == 2}
USE_CASES = re.findall(
    r"^\| [^|`]+ \| `(\w+ --[^`]+)`", (ROOT / "README.md").read_text(), re.MULTILINE
)  # rows of the table whose command is `workflow-blocks run`
SETTINGS = next(block for block in re.findall(r"```\n(.*?)```", README, re.DOTALL) if "post()" in block)


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A working directory that has what a clone has."""
    for name in ("workflows", "workflow_blocks"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def alerts():
    """What `receive_alerts.py` prints."""
    receiver = subprocess.Popen(
        [sys.executable, str(ROOT / "examples" / "receive_alerts.py")], stdout=subprocess.PIPE, text=True
    )
    time.sleep(1)
    yield receiver.stdout
    receiver.kill()
    receiver.wait()


def outputs_of(name):
    return {
        output["name"] for output in json.loads((ROOT / "workflows" / f"{name}.json").read_text())["outputs"]
    }


def run_command_line(block):
    """Inference's command line, in this process: its imports take half a minute."""
    from inference_cli.main import app

    for line in block.replace("\\\n", " ").splitlines():
        if line.startswith("inference "):
            result = CliRunner().invoke(app, shlex.split(line)[1:])
            assert result.exit_code == 0, result.output
        else:
            subprocess.run(["bash", "-c", line], check=True)


def post(block, address):
    script = SETTINGS.replace("http://127.0.0.1:9001", address) + block
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_every_definition_but_one_has_both_commands():
    definitions = {path.stem for path in (ROOT / "workflows").glob("*.json")}

    assert definitions - set(COMMANDS) == {"segment_by_prompt"}


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

    assert re.match(r"Alert: {'star': \d}, with a picture of \d+ bytes", alerts.readline())


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - {"alert_when_present"}))
def test_the_request(clone, server, name):
    (result,) = post(COMMANDS[name][1], server[0])["outputs"]

    assert set(result) == outputs_of(name)
    assert not any(result.get(failed) for failed in ("failed", "export_failed", "dataset_failed"))


def test_the_request_sends_an_alert(clone, server, alerts):
    (result,) = post(COMMANDS["alert_when_present"][1], server[0])["outputs"]

    assert result["alert_failed"] is False
    assert alerts.readline().startswith("Alert: {'star': ")


def test_every_definition_but_one_is_a_use_case():
    assert sorted(line.split()[0] for line in USE_CASES) == sorted(COMMANDS)


@pytest.mark.parametrize("line", USE_CASES, ids=lambda line: line.split()[0])
def test_a_use_case(clone, alerts, line):
    result = CliRunner().invoke(workflow_blocks_app, ["run", *shlex.split(line)])

    assert result.exit_code == 0, result.output
    assert " done, 0 failed" in result.output
    assert any((clone / "results" / line.split()[0]).iterdir())
