"""What installing this plugin adds to an environment, and what is said where Inference is missing."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from workflow_blocks import installation
from workflow_blocks.installation import DISTRIBUTIONS, server_requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OURS = "moondream2-workflow-blocks"


def requirement_names(requirements):
    return {Requirement(text).name for text in requirements}


def test_the_plugin_itself_requires_no_distribution_of_inference():
    banned = {*DISTRIBUTIONS, "onnxruntime", "onnxruntime-gpu", "opencv-python", "opencv-python-headless"}

    assert requirement_names(PROJECT["dependencies"]).isdisjoint(banned)


@pytest.mark.parametrize(
    ("extra", "distribution"),
    [
        ("cpu", "inference"),
        ("server", "inference"),
        ("gpu", "inference-gpu"),
        ("gpu-server", "inference-gpu"),
    ],
)
def test_an_extra_brings_one_distribution(extra, distribution):
    (requirement,) = map(Requirement, PROJECT["optional-dependencies"][extra])

    assert requirement.name == distribution
    assert requirement.extras == ({"http"} if "server" in extra else set())


def resolve(folder, *requirements, python, constraints=(), resolution="highest"):
    """The pins of everything that an environment needs, by name. It asks the package registry."""
    (folder / "constraints.txt").write_text("\n".join(f"{name}=={pin}" for name, pin in constraints))
    command = [Path(sys.executable).parent / "uv", "pip", "compile", "-", "--quiet", "--no-header"]
    command += [
        "--no-annotate",
        "--resolution",
        resolution,
        "--python-version",
        python,
        "--python-platform",
        "x86_64-manylinux_2_28",
    ]
    ended = subprocess.run(
        [*command, "--constraint", folder / "constraints.txt"],
        input="\n".join(requirements),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    lines = [line for line in ended.stdout.splitlines() if "==" in line]
    return dict(line.split(" ")[0].split("==") for line in lines)


@pytest.mark.long
@pytest.mark.parametrize(
    ("distribution", "python"),
    [
        pytest.param("inference-core[cpu]", "3.11", id="the CPU image"),
        pytest.param("inference-core[gpu]", "3.10", id="the GPU image"),
        pytest.param("inference-core", "3.12", id="core without a runtime"),
        pytest.param("inference-cpu", "3.12", id="inference-cpu"),
        pytest.param("inference-gpu", "3.12", id="inference-gpu"),
        pytest.param("inference", "3.13", id="inference"),
    ],
)
def test_the_plugin_adds_and_replaces_nothing_beside_inference(tmp_path, distribution, python):
    inference, plugin = f"{distribution}==1.8.3", f"{OURS} @ {ROOT.as_uri()}"
    before = resolve(tmp_path, inference, python=python)

    after = resolve(tmp_path, inference, plugin, python=python, constraints=before.items())

    assert after == before


@pytest.mark.long
def test_the_lowest_versions_that_are_declared_can_be_installed_together(tmp_path):
    """`make floors` runs the demo with them."""
    extras = PROJECT["optional-dependencies"]
    declared = [*PROJECT["dependencies"], *extras["server"], *extras["dev"]]
    floors = [(Requirement(text).name, re.search(r">=([\w.]+)", text)) for text in declared]

    pins = resolve(
        tmp_path,
        f"{OURS}[dev] @ {ROOT.as_uri()}",
        "torchvision>=0.20",
        python="3.11",
        resolution="lowest-direct",
    )

    declared_floors = {name: Version(floor[1]) for name, floor in floors if floor}
    assert {name: Version(pins[name]) for name in declared_floors} == declared_floors


COMMANDS = {
    "demo": ["demo"],
    "run": ["run", "count_by_prompt"],
    "serve": ["serve", "--port", "0"],
}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_a_command_without_inference_names_what_to_install(tmp_path, command):
    code = """
import sys
sys.modules["inference"] = None  # as if it were not installed
from workflow_blocks.commands.app import app
app()
"""
    ended = subprocess.run(
        [sys.executable, "-c", code, *command], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert ended.returncode == 1
    assert "pip install inference " in ended.stderr
    assert "pip install inference-gpu" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("installed", "requirement"),
    [
        ({"inference": "1.8.3"}, "inference[http]==1.8.3"),
        ({"inference-gpu": "1.9.0"}, "inference-gpu[http]==1.9.0"),
        ({"inference-core": "1.8.3"}, "inference-core[http]==1.8.3"),
        ({}, "inference[http]"),
    ],
)
def test_the_server_s_packages_belong_to_the_installed_distribution(monkeypatch, installed, requirement):
    def version(name):
        if name not in installed:
            raise installation.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(installation, "version", version)

    assert server_requirement() == requirement
