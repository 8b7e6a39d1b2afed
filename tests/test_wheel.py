"""What a user installs."""

import fnmatch
import re
import shutil
import zipfile
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_wheel_carries_the_model_the_workflows_and_the_samples(names):
    model = {path.name for path in (ROOT / "workflow_blocks" / "demo_model").iterdir() if path.is_file()}
    workflows = {path.name for path in (ROOT / "workflows").glob("*.json")}

    assert {f"workflow_blocks/demo_model/{name}" for name in model} <= names
    assert {f"workflow_blocks/workflows/{name}" for name in workflows} <= names
    assert any(name.startswith("workflow_blocks/sample_images/") for name in names)
    assert any(name.startswith("workflow_blocks/sample_video/") for name in names)
    assert "workflow_blocks/py.typed" in names


def test_the_files_that_the_docker_image_is_built_from_make_the_same_wheel(names, tmp_path):
    sources, ignore = tmp_path / "source", (ROOT / "docker" / "Dockerfile.dockerignore").read_text().split()
    allowed = [pattern[1:] for pattern in ignore if pattern.startswith("!")]
    dockerfile = (ROOT / "docker" / "Dockerfile").read_text()
    for copied, target in re.findall(r"^COPY (?!--from)(.*) /source/(\S*)$", dockerfile, re.MULTILINE):
        for name in copied.split():
            assert any(fnmatch.fnmatch(name, pattern) for pattern in allowed), name
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, sources / target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                sources.mkdir(exist_ok=True)
                shutil.copy(ROOT / name, sources / target)

    (wheel,) = WheelBuilder(str(sources)).build(directory=str(tmp_path / "dist"), versions=["standard"])

    with zipfile.ZipFile(wheel) as archive:
        assert set(archive.namelist()) == names


def test_the_wheel_carries_nothing_else(names):
    assert {name.split("/")[0].split("-")[0] for name in names} == {
        "workflow_blocks",
        "moondream2_workflow_blocks",
    }
