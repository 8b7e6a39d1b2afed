"""How the runtime runs, from environment variables `MOONDREAM2_*` (`MOONDREAM2_DTYPE=bfloat16`)."""

from pathlib import Path
from typing import Literal

import torch
from pydantic import Field, NonNegativeInt, PositiveInt, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from workflow_blocks.moondream2.layers import has_bfloat16_instructions
from workflow_blocks.moondream2.memory import WorkingMemory

_PREFIX = "MOONDREAM2_"
_MIB = 2**20
# On a CPU, smaller models gain nothing from bfloat16.
_LARGE_MODEL = 64 * _MIB


class SettingsError(ValueError):
    """A setting cannot be used; the message names the variable and how to fix it."""


class RuntimeSettings(BaseSettings):
    """The settings; the defaults suit most machines."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, frozen=True, extra="ignore")

    device: str | None = Field(
        default=None, description="Device to run on; by default the one on which Inference runs."
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto",
        description="`auto` is bfloat16 on CUDA and, for models of more than 64 MiB, on a CPU that has "
        "instructions for it; float32 elsewhere.",
    )
    compile: bool = Field(default=False, description="Whether `torch.compile` fuses the layers.")
    image_cache_mb: NonNegativeInt = Field(
        default=512,
        description="Encoded images kept for the next step that asks for them, in MiB; 0 for none.",
    )
    working_memory_mb: PositiveInt | None = Field(
        default=None,
        description="Memory for the images and prompts that run together, in MiB, beside the weights; by "
        "default 1024, or a quarter of a CUDA device's memory.",
    )
    refine_boxes: bool = Field(
        default=False,
        description="Whether boxes are placed between bins if neighbouring bins are about equally likely.",
    )

    def device_or(self, default: str | torch.device) -> torch.device:
        """The device to run on.

        Raises:
            SettingsError: there is no such device.
        """
        if self.device is None:
            return torch.device(default)
        try:
            device = torch.device(self.device)
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            reason = str(error).splitlines()[0]
            raise SettingsError(
                f"MOONDREAM2_DEVICE={self.device!r} is not a device of this machine: {reason}"
            ) from error
        return device

    def dtype_of(self, folder: Path, device: torch.device) -> torch.dtype:
        """The dtype in which a checkpoint folder runs.

        On a CPU without instructions for it, bfloat16 was measured several times slower than float32.
        """
        if self.dtype == "auto":
            fast_cpu = device.type == "cpu" and has_bfloat16_instructions() and _is_large(folder)
            return torch.bfloat16 if fast_cpu or device.type == "cuda" else torch.float32
        dtype: torch.dtype = getattr(torch, self.dtype)
        return dtype

    def working_memory_on(self, device: torch.device) -> WorkingMemory:
        if self.working_memory_mb is None:
            return WorkingMemory.on(device)
        return WorkingMemory(self.working_memory_mb * _MIB)

    @property
    def image_cache_bytes(self) -> int:
        return self.image_cache_mb * _MIB


def _is_large(folder: Path) -> bool:
    return sum(path.stat().st_size for path in folder.glob("*.safetensors")) > _LARGE_MODEL


def load_settings() -> RuntimeSettings:
    """Reads the environment.

    Raises:
        SettingsError: a variable has an invalid value.
    """
    try:
        return RuntimeSettings()
    except ValidationError as error:
        problem = error.errors()[0]
        name = _PREFIX + str(problem["loc"][0]).upper()
        raise SettingsError(f"{name}={problem['input']!r}: {problem['msg']}") from error
