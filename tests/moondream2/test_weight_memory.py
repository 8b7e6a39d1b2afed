"""Whether a model's weights fit is checked before they are loaded."""

import pytest
import torch

from workflow_blocks.bundled_model import demo_model_folder
from workflow_blocks.inference_host.loading import load_runtime
from workflow_blocks.moondream2 import int8, weight_memory
from workflow_blocks.moondream2.checkpoint import load_model
from workflow_blocks.moondream2.config import Moondream2Config
from workflow_blocks.moondream2.weight_memory import GIB, check_memory, weight_bytes
from workflow_blocks.settings_error import SettingsError

CPU = torch.device("cpu")
RELEASED = Moondream2Config()


def test_the_bytes_are_those_of_the_loaded_weights():
    config = Moondream2Config.from_file(demo_model_folder() / "config.json")
    model = load_model(demo_model_folder(), config, CPU, torch.float32)

    assert weight_bytes(config, torch.float32) == sum(weight.nbytes for weight in model.state_dict().values())


@pytest.fixture
def has_bfloat16(monkeypatch):
    """A CPU with instructions for bfloat16, around which int8 needs less memory."""
    for module in (int8, weight_memory):
        monkeypatch.setattr(module, "multiplies_bfloat16", lambda: True)


@pytest.mark.usefixtures("has_bfloat16")
def test_the_released_sizes_take_what_is_published():
    assert weight_bytes(RELEASED, torch.bfloat16) / GIB == pytest.approx(3.59, abs=0.01)
    assert weight_bytes(RELEASED, torch.int8) / GIB < 2.2


@pytest.mark.parametrize(
    ("dtype", "free", "fix"),
    [
        (torch.float32, 5.0, "set MOONDREAM2_DTYPE=bfloat16, which runs in 4.3 GiB"),
        (torch.float32, 8.0, "set MOONDREAM2_DTYPE=bfloat16"),
        (torch.float32, 4.0, "set MOONDREAM2_DTYPE=int8, which runs in 3.6 GiB"),
        (torch.bfloat16, 4.0, "set MOONDREAM2_DTYPE=int8"),
        (torch.float16, 4.0, "set MOONDREAM2_DTYPE=int8"),
        (torch.bfloat16, 3.0, "free; free memory or take a machine with more"),
        (torch.int8, 2.5, "free; free memory or take a machine with more"),
    ],
)
@pytest.mark.usefixtures("has_bfloat16")
def test_too_little_memory_is_an_error_with_what_would_fit(monkeypatch, dtype, free, fix):
    monkeypatch.setattr(weight_memory, "int8_problem", lambda: None)
    monkeypatch.setattr(weight_memory, "free_memory", lambda _: int(free * GIB))

    with pytest.raises(SettingsError) as raised:
        check_memory(RELEASED, CPU, dtype, "auto")

    assert fix in str(raised.value)
    assert f"{free:.1f} GiB free" in str(raised.value)


@pytest.mark.parametrize(
    ("free", "fix"),
    [(4.0, "free memory"), (5.0, "set MOONDREAM2_DTYPE=bfloat16, which runs in 4.3 GiB, but slowly")],
)
def test_a_dtype_that_this_cpu_is_not_made_for_is_not_recommended(monkeypatch, free, fix):
    monkeypatch.setattr(weight_memory, "int8_problem", lambda: "no instructions")
    monkeypatch.setattr(weight_memory, "multiplies_bfloat16", lambda: False)
    monkeypatch.setattr(weight_memory, "free_memory", lambda _: int(free * GIB))

    with pytest.raises(SettingsError, match=fix) as raised:
        check_memory(RELEASED, CPU, torch.float32, "float32")

    assert "int8" not in str(raised.value)


@pytest.mark.parametrize("free", [None, 100 * GIB])
def test_enough_or_unknown_memory_is_no_error(monkeypatch, free):
    monkeypatch.setattr(weight_memory, "free_memory", lambda _: free)

    check_memory(RELEASED, CPU, torch.float32, "float32")


def test_it_is_checked_before_anything_is_loaded(monkeypatch):
    monkeypatch.setattr(weight_memory, "free_memory", lambda _: 0)
    monkeypatch.setattr("workflow_blocks.moondream2.runtime.load_model", None)

    with pytest.raises(SettingsError, match=r"cpu has 0\.0 GiB free"):
        load_runtime(demo_model_folder(), "cpu")
