"""How much memory a model takes, and whether this machine has it."""

import torch

from workflow_blocks.moondream2.config import Moondream2Config
from workflow_blocks.moondream2.free_memory import free_memory
from workflow_blocks.moondream2.int8 import int8_problem, is_quantised, wide_dtype
from workflow_blocks.moondream2.layers import multiplies_bfloat16
from workflow_blocks.moondream2.model import Moondream2
from workflow_blocks.settings_error import SettingsError

GIB = 2**30
# What loading and running take beside the weights, as a share of them: `benchmarks.released_size` shows it.
_BESIDE_INT8, _BESIDE_OTHERS = 0.75, 0.2


def weight_bytes(config: Moondream2Config, dtype: torch.dtype) -> int:
    """Bytes of a model's weights in a dtype; `torch.int8` is int8 with a wider dtype around it."""
    model = Moondream2.without_weights(config)
    others = wide_dtype(model, dtype)
    return sum(
        weight.numel() * (1 if dtype == torch.int8 and is_quantised(name) else others.itemsize)
        for name, weight in model.state_dict().items()
    )


def needed_bytes(config: Moondream2Config, dtype: torch.dtype) -> int:
    """About how many bytes it takes to load a model in a dtype and run it, the image cache left out."""
    return int(weight_bytes(config, dtype) * (1 + (_BESIDE_INT8 if dtype == torch.int8 else _BESIDE_OTHERS)))


def check_memory(config: Moondream2Config, device: torch.device, dtype: torch.dtype, setting: str) -> None:
    """Checks before loading that a model fits.

    Args:
        config: the model's sizes.
        device: where it will run.
        dtype: what it will run in.
        setting: the value of `MOONDREAM2_DTYPE`.

    Raises:
        SettingsError: it does not; the message names a dtype that would fit, if there is one.
    """
    free, needed = free_memory(device), needed_bytes(config, dtype)
    if free is None or needed <= free:
        return
    fix = "free memory or take a machine with more"
    for other in _narrower(dtype, device):
        if (size := needed_bytes(config, other)) <= free:
            slowly = "" if other != torch.bfloat16 or _is_fast_in_bfloat16(device) else ", but slowly"
            fix = f"set MOONDREAM2_DTYPE={_name(other)}, which runs in {_gib(size)}{slowly}, or {fix}"
            break
    weights = _gib(weight_bytes(config, dtype))
    raise SettingsError(
        f"MOONDREAM2_DTYPE={setting!r}: in {_name(dtype)} the model takes about {_gib(needed)} to load and "
        f"run, {weights} of them for its weights; {device} has {_gib(free)} free; {fix}"
    )


def _narrower(dtype: torch.dtype, device: torch.device) -> list[torch.dtype]:
    """The dtypes with smaller weights that run on a device, the widest first."""
    if dtype == torch.int8:
        return []
    wide = [torch.bfloat16] if dtype == torch.float32 else []
    return wide + ([torch.int8] if device.type == "cpu" and int8_problem() is None else [])


def _is_fast_in_bfloat16(device: torch.device) -> bool:
    return device.type != "cpu" or multiplies_bfloat16()


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _gib(n_bytes: int) -> str:
    return f"{n_bytes / GIB:.1f} GiB"
