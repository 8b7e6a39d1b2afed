import pytest
import torch

from workflow_blocks.inference_host.model import Moondream2Model
from workflow_blocks.moondream2 import settings as settings_module
from workflow_blocks.moondream2.settings import SettingsError, load_settings

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def test_by_default_the_model_runs_where_inference_says():
    settings = load_settings()

    assert settings.device_or("cpu") == CPU


@pytest.mark.parametrize("has_instructions", [False, True])
@pytest.mark.parametrize("mebibytes", [1, 100])
def test_by_default_large_models_run_in_bfloat16_where_the_cpu_multiplies_it(
    monkeypatch, tmp_path, has_instructions, mebibytes
):
    monkeypatch.setattr(settings_module, "has_bfloat16_instructions", lambda: has_instructions)
    for shard in range(2):
        with (tmp_path / f"model-{shard}.safetensors").open("wb") as file:
            file.truncate(mebibytes * 2**20)
    settings = load_settings()

    fast = has_instructions and mebibytes == 100
    assert settings.dtype_of(tmp_path, CPU) == (torch.bfloat16 if fast else torch.float32)
    assert settings.dtype_of(tmp_path, CUDA) == torch.bfloat16


@pytest.mark.parametrize("device", [CPU, CUDA], ids=str)
def test_the_dtype_can_be_set(monkeypatch, tmp_path, device):
    monkeypatch.setenv("MOONDREAM2_DTYPE", "float16")

    assert load_settings().dtype_of(tmp_path, device) == torch.float16


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MOONDREAM2_DTYPE", "int8"),
        ("MOONDREAM2_IMAGE_CACHE_MB", "-1"),
        ("MOONDREAM2_IMAGE_CACHE_MB", "much"),
        ("MOONDREAM2_WORKING_MEMORY_MB", "0"),
        ("MOONDREAM2_COMPILE", "perhaps"),
        ("MOONDREAM2_DEVICE", "abacus"),
        ("MOONDREAM2_DEVICE", "cuda:99"),
    ],
)
def test_an_invalid_setting_is_reported_with_its_name_and_value(monkeypatch, golden_package, name, value):
    monkeypatch.setenv(name, value)

    with pytest.raises(SettingsError, match=name) as caught:
        Moondream2Model.from_pretrained(str(golden_package))

    assert value in str(caught.value)
