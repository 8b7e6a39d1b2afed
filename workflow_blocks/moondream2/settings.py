"""How the runtime runs, from environment variables `MOONDREAM2_*` (`MOONDREAM2_DTYPE=bfloat16`)."""

from typing import Literal

import torch
from pydantic import Field, NonNegativeInt, PositiveInt, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from workflow_blocks.moondream2.config import Moondream2Config
from workflow_blocks.moondream2.int8 import int8_problem
from workflow_blocks.moondream2.layers import multiplies_bfloat16
from workflow_blocks.moondream2.memory import WorkingMemory
from workflow_blocks.moondream2.model import Moondream2
from workflow_blocks.settings_error import SettingsError

_PREFIX = "MOONDREAM2_"
_MIB = 2**20


class RuntimeSettings(BaseSettings):
    """The settings; the defaults suit most machines."""

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX, env_ignore_empty=True, frozen=True, extra="ignore", str_strip_whitespace=True
    )

    device: str | None = Field(
        default=None, description="Device to run on; by default the one on which Inference runs."
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16", "int8"] = Field(
        default="auto",
        description="`auto` is bfloat16 on CUDA and, for models of more than 33 million weights, on a CPU "
        "that has instructions for it; float32 elsewhere. `int8` is for CPUs.",
    )
    max_crops: PositiveInt | None = Field(
        default=None,
        description="The most crops that an image is cut into; 1 encodes only the whole "
        "image. By default, and at most, the model's own number.",
    )
    compile: bool = Field(default=False, description="Whether `torch.compile` fuses the layers.")
    join_requests: bool = Field(
        default=True,
        description="Whether requests that wait for the model run together: images are encoded, and prompts "
        "decoded, in one batch. No request waits for others to come.",
    )
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

    @field_validator("dtype", mode="before")
    @classmethod
    def _in_lower_case(cls, value: object) -> object:
        return value.strip().lower() if isinstance(value, str) else value

    def device_or(self, default: str | torch.device) -> torch.device:
        """The device to run on.

        Raises:
            SettingsError: there is no such device.
        """
        if self.device is None:
            return torch.device(default)
        try:
            device = torch.device(self.device)
            torch.ones(1, device=device).item()  # fails on devices that hold no values, such as `meta`
        except (RuntimeError, AssertionError, ImportError) as error:
            reason = _first_line(error)
            raise SettingsError(
                f"MOONDREAM2_DEVICE={self.device!r} is not a device of this machine: {reason}"
            ) from error
        return device

    def dtype_of(self, config: Moondream2Config, device: torch.device) -> torch.dtype:
        """The dtype in which a model runs; `torch.int8` is int8 with a wider dtype around it.

        On a CPU without instructions for it, bfloat16 was measured several times slower than float32.
        """
        return self.dtype_for(Moondream2.without_weights(config).is_large, device)

    def dtype_for(self, is_large: bool, device: torch.device) -> torch.dtype:
        """The same for a large or a small model."""
        if self.dtype == "auto":
            if device.type == "cpu":
                return torch.bfloat16 if is_large and multiplies_bfloat16() else torch.float32
            return torch.bfloat16 if device.type == "cuda" else torch.float32
        dtype: torch.dtype = getattr(torch, self.dtype)
        return dtype

    def check_dtype_on(self, device: torch.device, dtype: torch.dtype) -> None:
        """Computes something small in a dtype.

        Raises:
            SettingsError: the device does not support it.
        """
        if dtype == torch.int8:
            self._check_int8_on(device)
            return
        try:
            _compute(_values(device, dtype))
        except Exception as error:  # backends raise anything
            raise SettingsError(
                f"MOONDREAM2_DTYPE={self.dtype!r} does not run on {device}: {_first_line(error)}"
            ) from error

    def check_on(self, device: torch.device, dtype: torch.dtype) -> None:
        """Computes something small as the model will: in `dtype`, and compiled if it is to be.

        Raises:
            SettingsError: the device does not support the dtype, or `torch.compile` does not work here.
        """
        self.check_dtype_on(device, dtype)
        if not self.compile:
            return
        if dtype == torch.int8:
            raise SettingsError(
                "MOONDREAM2_COMPILE=True does not work with MOONDREAM2_DTYPE='int8'; unset one of them"
            )
        try:
            # Without the cache, which would hide that a compiler is missing.
            compiled = torch.compile(_compute, dynamic=True, options={"force_disable_caches": True})
            compiled(_values(device, dtype))
        except Exception as error:  # compilers raise anything
            raise SettingsError(
                f"MOONDREAM2_COMPILE={self.compile}: torch.compile does not work on this machine "
                f"({_first_line(error)}); install a C++ compiler such as g++, or unset MOONDREAM2_COMPILE"
            ) from error

    def _check_int8_on(self, device: torch.device) -> None:
        problem = "it is for CPUs" if device.type != "cpu" else int8_problem()
        if problem:
            raise SettingsError(
                f"MOONDREAM2_DTYPE={self.dtype!r} does not run on {device}: {problem}; give 'auto'"
            )

    def working_memory_on(self, device: torch.device) -> WorkingMemory:
        if self.working_memory_mb is None:
            return WorkingMemory.on(device)
        return WorkingMemory(self.working_memory_mb * _MIB)

    @property
    def image_cache_bytes(self) -> int:
        return self.image_cache_mb * _MIB


def _values(device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    return torch.ones((4, 4), device=device, dtype=dtype)


def _compute(values: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.gelu(values @ values)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


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
        meaning = RuntimeSettings.model_fields[str(problem["loc"][0])].description
        raise SettingsError(
            f"{name}={problem['input']!r}: {problem['msg']}. Its meaning: {meaning}"
        ) from error
