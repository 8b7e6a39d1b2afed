import os
import subprocess
import sys

import pytest
import torch

from workflow_blocks.bundled_model import demo_model_folder
from workflow_blocks.inference_host.model import Moondream2Model
from workflow_blocks.moondream2 import int8 as int8_module
from workflow_blocks.moondream2 import settings as settings_module
from workflow_blocks.moondream2.config import Moondream2Config
from workflow_blocks.moondream2.model import Moondream2
from workflow_blocks.moondream2.settings import RuntimeSettings, SettingsError, load_settings

SMALL = Moondream2Config.from_file(demo_model_folder() / "config.json")
CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def test_by_default_the_model_runs_where_inference_says():
    settings = load_settings()

    assert settings.device_or("cpu") == CPU


@pytest.mark.parametrize("has_instructions", [False, True])
@pytest.mark.parametrize("is_large", [False, True])
def test_by_default_large_models_run_in_bfloat16_where_the_cpu_multiplies_it(
    monkeypatch, has_instructions, is_large
):
    for module in (settings_module, int8_module):
        monkeypatch.setattr(module, "multiplies_bfloat16", lambda: has_instructions)
    config = Moondream2Config() if is_large else SMALL
    settings = load_settings()

    on_cpu = torch.bfloat16 if has_instructions and is_large else torch.float32
    assert settings.dtype_of(config, CPU) == on_cpu
    assert settings.dtype_of(config, CUDA) == torch.bfloat16
    assert int8_module.wide_dtype(Moondream2.without_weights(config), torch.int8) == on_cpu


@pytest.mark.parametrize("device", [CPU, CUDA], ids=str)
@pytest.mark.parametrize("value", ["float16", " Float16 ", "FLOAT16"])
def test_the_dtype_can_be_set(monkeypatch, device, value):
    monkeypatch.setenv("MOONDREAM2_DTYPE", value)

    assert load_settings().dtype_of(SMALL, device) == torch.float16


@pytest.mark.parametrize("name", sorted(RuntimeSettings.model_fields))
def test_an_empty_variable_is_like_none(monkeypatch, name):
    monkeypatch.setenv(f"MOONDREAM2_{name.upper()}", "")

    assert load_settings() == RuntimeSettings.model_construct()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MOONDREAM2_DTYPE", "int4"),
        ("MOONDREAM2_MAX_CROPS", "0"),
        ("MOONDREAM2_MAX_CROPS", "few"),
        ("MOONDREAM2_IMAGE_CACHE_MB", "-1"),
        ("MOONDREAM2_IMAGE_CACHE_MB", "much"),
        ("MOONDREAM2_WORKING_MEMORY_MB", "0"),
        ("MOONDREAM2_COMPILE", "perhaps"),
        ("MOONDREAM2_DEVICE", "abacus"),
        ("MOONDREAM2_DEVICE", "cuda:99"),
        ("MOONDREAM2_DEVICE", "meta"),
        ("MOONDREAM2_DEVICE", "hpu"),
    ],
)
def test_an_invalid_setting_is_reported_with_its_name_and_value(monkeypatch, golden_package, name, value):
    monkeypatch.setenv(name, value)

    with pytest.raises(SettingsError, match=name) as caught:
        Moondream2Model.from_pretrained(str(golden_package))

    assert value in str(caught.value)


LOAD = """
import sys
import torch
from workflow_blocks.moondream2.settings import SettingsError, load_settings
try:
    load_settings().check_on(torch.device("cpu"), torch.float32)
except SettingsError as error:
    sys.exit(str(error))
"""


@pytest.mark.long
@pytest.mark.parametrize(("compile_it", "starts"), [("true", False), ("false", True)])
def test_compiling_without_a_compiler_fails_when_the_model_is_loaded(tmp_path, compile_it, starts):
    """In a process of its own: PyTorch remembers which compiler it found."""
    environment = os.environ | {"PATH": str(tmp_path), "MOONDREAM2_COMPILE": compile_it}
    environment.pop("CXX", None)

    done = subprocess.run(
        [sys.executable, "-c", LOAD], env=environment, capture_output=True, text=True, check=False
    )

    assert (done.returncode == 0) == starts, done.stderr
    if not starts:
        assert "MOONDREAM2_COMPILE=True: torch.compile does not work" in done.stderr
        assert "g++" in done.stderr


def test_a_dtype_that_the_device_does_not_support_fails_when_the_model_is_loaded(monkeypatch):
    def fail(values):
        raise RuntimeError("not implemented for 'Half'\nmore")

    monkeypatch.setattr("workflow_blocks.moondream2.settings._compute", fail)
    monkeypatch.setenv("MOONDREAM2_DTYPE", "float16")

    with pytest.raises(
        SettingsError, match="MOONDREAM2_DTYPE='float16' does not run on cpu: not implemented"
    ):
        load_settings().check_on(CPU, torch.float32)


@pytest.mark.parametrize(
    ("device", "problem", "compile_it", "reason"),
    [
        (CUDA, None, False, "it is for CPUs"),
        (CPU, "this CPU has none of the instructions", False, "none of the instructions"),
        (CPU, None, True, "MOONDREAM2_COMPILE=True does not work with"),
        (CPU, None, False, None),
    ],
)
def test_int8_is_refused_where_it_cannot_run(monkeypatch, device, problem, compile_it, reason):
    monkeypatch.setattr(settings_module, "int8_problem", lambda: problem)
    monkeypatch.setenv("MOONDREAM2_DTYPE", "int8")
    monkeypatch.setenv("MOONDREAM2_COMPILE", str(compile_it))
    settings = load_settings()

    if reason is None:
        settings.check_on(device, torch.int8)
    else:
        with pytest.raises(SettingsError, match=reason):
            settings.check_on(device, torch.int8)
