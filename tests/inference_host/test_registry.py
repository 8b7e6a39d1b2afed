"""Our classes in Inference's registries, whenever they are registered."""

import os
import subprocess
import sys

import pytest

# Each program prints what it finds at the end.
PRELUDE = """
import logging, os, sys
logging.basicConfig(format="%(levelname)s %(message)s")
def report():
    from inference.models.utils import ROBOFLOW_MODEL_TYPES
    from inference_models.models.auto_loaders.entities import BackendType
    from inference_models.models.auto_loaders.models_registry import REGISTERED_MODELS, resolve_model_class
    print("class", resolve_model_class("moondream2", "vlm", BackendType.HF).__name__)
    print("adapters", *(ROBOFLOW_MODEL_TYPES[(task, "moondream2")].__name__ for task in ("vlm", "lmm")))
"""
STOCK_SERVER_FIRST = """
import inference.models.utils, inference.core.registries.roboflow
import workflow_blocks
for _ in range(3):
    workflow_blocks.load_blocks()
report()
"""
LOADED_BEFORE = """
from inference_models.models.auto_loaders.models_registry import resolve_model_class
from inference_models.models.auto_loaders.entities import BackendType
resolve_model_class("moondream2", "vlm", BackendType.HF)  # as when a model is loaded
import workflow_blocks
for _ in range(3):
    workflow_blocks.load_blocks()
report()
"""
OURS_FIRST = """
from workflow_blocks.inference_host.registry import register
register()
assert "torch" not in sys.modules
report()
"""


def run(program, **settings):
    environment = os.environ | {"OFFLINE_MODE": "True", "METRICS_ENABLED": "False"} | settings
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PRELUDE + program],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout, result.stderr


@pytest.mark.parametrize(
    "program",
    [
        pytest.param(STOCK_SERVER_FIRST, id="Inference first"),
        pytest.param(OURS_FIRST, id="ours first", marks=pytest.mark.long),
    ],
)
def test_our_class_and_adapter_are_registered(program):
    output, log = run(program)

    assert "class ProviderMoondream2" in output
    assert "adapters Moondream2Adapter Moondream2Adapter" in output
    assert "before this plugin was registered" not in log


@pytest.mark.long
def test_registering_after_a_model_was_loaded_is_logged_once_with_what_to_do():
    output, log = run(LOADED_BEFORE)

    assert "class ProviderMoondream2" in output
    assert log.count("before this plugin was registered") == 1
    assert "workflow_blocks.running.server_app:app" in log


@pytest.mark.long
def test_inference_keeps_its_class_by_choice_and_our_models_their_adapter():
    output, _ = run(OURS_FIRST, MOONDREAM2_RUNTIME="inference")

    assert "class MoonDream2HF" in output
    assert "adapters Moondream2Adapter Moondream2Adapter" in output


@pytest.mark.long
def test_without_inference_models_nothing_is_replaced():
    program = OURS_FIRST.replace("report()", "") + (
        "from inference.models.utils import ROBOFLOW_MODEL_TYPES\n"
        "print([value.__name__ for key, value in ROBOFLOW_MODEL_TYPES.items() if key[1] == 'moondream2'])\n"
    )
    output, _ = run(program, USE_INFERENCE_MODELS="False")

    assert "Moondream2Adapter" not in output


@pytest.mark.parametrize("command", [["serve", "--port", "0"], ["run", "count_by_prompt"], ["demo"]])
@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("MOONDREAM2_RUNTIME", "fast", "='fast': give one of auto, own, inference"),
        ("MOONDREAM2_DTYPE", "int3", "='int3': Input should be 'auto', 'float32'"),
        ("MOONDREAM2_DEVICE", "abacus", "='abacus' is not a device of this machine"),
        ("MOONDREAM2_WORKING_MEMORY_MB", "0", "='0': Input should be greater than 0"),
        ("MOONDREAM2_API_TIMEOUT", "soon", " is invalid"),
    ],
)
def test_an_invalid_setting_ends_a_command_before_anything_runs(
    command, name, value, problem, monkeypatch, tmp_path
):
    from typer.testing import CliRunner

    from workflow_blocks.commands.app import app

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(name, value)

    result = CliRunner().invoke(app, command)

    assert result.exit_code == 1
    assert f"Error: {name}{problem}" in result.output
    assert not list(tmp_path.iterdir())


def test_settings_of_the_runtime_do_not_matter_where_another_server_runs_the_model(monkeypatch):
    from workflow_blocks.running.settings import check_settings

    monkeypatch.setenv("MOONDREAM2_DEVICE", "abacus")
    monkeypatch.setenv("MOONDREAM2_API_URL", "http://127.0.0.1:9")

    check_settings()
