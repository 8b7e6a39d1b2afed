"""The commands of `docs/from_words_to_a_model.md`, run as they are written there, from the first to the last.

Training needs `ultralytics`, which is not a dependency of this plugin. The variable `YOLO_ENV` names an
environment that has it, as the page makes it; without it, a `yolo` on the path is taken.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from workflow_blocks.datasets.labelled import read_labelled
from workflow_blocks.inference_host.engine import PLUGIN_SETTINGS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "from_words_to_a_model.md").read_text()
SETTINGS, *COMMANDS = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
NOT_RUN_HERE = [
    "workflow-blocks serve\n",
    "python3 -m venv yolo-env && yolo-env/bin/pip install ultralytics\n",
]
WITHOUT_YOLO = [block for block in COMMANDS if "yolo-env" not in block and "my_yolo" not in block]
WITH_YOLO = [block for block in COMMANDS if block not in WITHOUT_YOLO]

pytestmark = pytest.mark.long


def run_in(folder, blocks):
    """Runs blocks of commands in one shell, without settings that this process has made."""
    environment = {name: value for name, value in os.environ.items() if name not in PLUGIN_SETTINGS}
    done = subprocess.run(
        ["bash", "-ec", SETTINGS + "".join(blocks)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A working directory that has what a clone has after `make` created its environment."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("workflows", "workflow_blocks", "examples", "training"):
        (folder / name).symlink_to(ROOT / name)
    (folder / ".venv").symlink_to(sys.prefix)
    return folder


@pytest.fixture(scope="module")
def labelled(clone):
    """The same directory after all commands that need no YOLO."""
    run_in(clone, WITHOUT_YOLO)
    return clone


@pytest.fixture(scope="module")
def yolo():
    """The folder of programs of an environment with Ultralytics."""
    named = os.environ.get("YOLO_ENV")
    program = Path(named) / "bin" / "yolo" if named else shutil.which("yolo")
    if program is None or not Path(program).exists():
        pytest.skip("ultralytics is not installed: set YOLO_ENV to an environment that has it")
    return Path(program).absolute().parent


def test_every_block_of_the_page_is_run_or_named():
    others = re.findall(
        r"^```\n(.*?)^```$", re.sub(r"```bash\n.*?```", "", PAGE, flags=re.DOTALL), re.M | re.S
    )

    assert others == NOT_RUN_HERE
    assert len(WITHOUT_YOLO) == 4
    assert len(WITH_YOLO) == 2


def test_words_are_tried_in_the_playground(server):
    with urllib.request.urlopen(f"{server}/playground", timeout=60) as answer:
        assert answer.status == 200


def test_words_become_labels(labelled):
    metrics = json.loads((labelled / "results" / "prompts" / "metrics.json").read_text())
    dataset = labelled / "results" / "labels" / "dataset"
    counts = {split: len(read_labelled(dataset, split, "yolo").images) for split in ("train", "valid")}

    assert metrics["map_50"] > 0.8
    assert min(counts.values()) > 0
    assert sum(counts.values()) == len(list((labelled / "shapes" / "unlabelled").iterdir()))


def test_a_yolo_is_trained_and_takes_the_place(labelled, yolo):
    (labelled / "yolo-env").mkdir()
    (labelled / "yolo-env" / "bin").symlink_to(yolo)

    run_in(labelled, WITH_YOLO)

    images = list((labelled / "shapes" / "unlabelled").iterdir())
    results = [labelled / "results" / "yolo" / image.name / "results.json" for image in images]
    assert all("predictions" in json.loads(result.read_text())["predictions"] for result in results)
    figures = {
        name: json.loads((labelled / "results" / name / "metrics.json").read_text())
        for name in ("yolo_test", "prompts_test")
    }
    assert figures["yolo_test"]["images"] == figures["prompts_test"]["images"] > 0
    assert 0 <= figures["yolo_test"]["map_50"] <= figures["prompts_test"]["map_50"]
