"""Loads published-layout safetensors and the tokenizer, strictly. Nothing in a checkpoint runs."""

import json
import re
import string
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer
from torch import Tensor

from workflow_blocks.moondream2.config import Moondream2Config
from workflow_blocks.moondream2.int8 import Int8Linear, is_quantised, wide_dtype
from workflow_blocks.moondream2.layers import PackedLinear, is_faster_packed
from workflow_blocks.moondream2.model import Moondream2
from workflow_blocks.settings_error import SettingsError

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
WEIGHTS_INDEX_FILE = "model.safetensors.index.json"
TOKENIZER_FILE = "tokenizer.json"
SHARDS = "model-*.safetensors"
OTHER_WEIGHTS = "pytorch_model*.bin"

# Published files name every tensor from this root; some leave it out.
_ROOT = "model"
# What `torch.compile`, and training on several devices, put into names at any place.
_WRAPPERS = {"_orig_mod", "module"}

_MAX_NAMES_IN_ERROR = 5
_READ_AT_ONCE = 2**28

_SHARD = re.compile(r"model-(\d+)-of-(\d+)\.safetensors")


class CheckpointError(ValueError):
    """A checkpoint cannot be used; the message names the file and the tensor or entry."""


class DamagedError(CheckpointError):
    """A file of a checkpoint is damaged, or was not downloaded completely."""


class TokenizerError(CheckpointError):
    """A tokenizer is missing or damaged, or belongs to another model."""


def load_model(
    folder: Path, config: Moondream2Config, device: torch.device, dtype: torch.dtype, pack: bool = False
) -> Moondream2:
    """Loads the weights of a checkpoint folder, ready to run.

    Args:
        folder: the folder.
        config: the model's sizes.
        device: where it will run.
        dtype: what in; `torch.int8` quantises the large layers.
        pack: whether to store large layers as this machine multiplies them fastest. They cannot be read or
            compiled afterwards.

    Raises:
        CheckpointError: a file is missing or damaged, or a tensor is missing, extra or of another
            shape than `config` says, or holds values that `dtype` cannot.
        SettingsError: this process may not use as much memory as a file takes.
    """
    model = Moondream2.without_weights(config)
    is_int8 = dtype == torch.int8
    wide = wide_dtype(model, dtype)
    # Rows of `lm_head` are read singly.
    packed = {
        name
        for name, layer in model.named_modules()
        if pack and name != "text.lm_head" and is_faster_packed(layer, device, wide)
    }
    layers: dict[str, Int8Linear | PackedLinear] = {}
    state: dict[str, Tensor] = {}
    for name, tensor in read_weights(folder, config):
        _check_range(name, tensor, wide)
        layer = name.removesuffix(".weight")
        if is_int8 and is_quantised(name):
            layers[layer] = Int8Linear(tensor, None, wide)
        elif layer in packed:
            layers[layer] = PackedLinear(tensor.to(wide), None)
        else:
            # A copy: what is read from a file keeps all of the file in memory.
            state[name] = tensor.to(device, wide, copy=True)
    for name, replacement in layers.items():
        replacement.bias = state.pop(f"{name}.bias")
        model.set_submodule(name, replacement)
    model.load_state_dict(state, assign=True)
    return model.requires_grad_(False).eval()


def read_weights(folder: Path, config: Moondream2Config) -> Iterator[tuple[str, Tensor]]:
    """Reads every tensor of a checkpoint folder, under the name that the model has for it.

    Raises:
        CheckpointError, DamagedError: as `load_model`; missing tensors are reported at the end.
    """
    expected = Moondream2.without_weights(config).state_dict()
    missing = set(expected)
    for path in weight_files(folder):
        for name, tensor in _read_tensors(path):
            _check_tensor(path, name, tensor, expected)
            if name not in missing:
                raise DamagedError(f"{path.name}: tensor {name!r} is given twice")
            missing.remove(name)
            yield name, tensor
    if missing:
        raise DamagedError(f"{folder}: {_some(sorted(missing))} missing from the weights")


def weight_files(folder: Path) -> list[Path]:
    """The weights' single file, or its shards in the order of their names.

    Raises:
        CheckpointError: the weights are in another format.
        DamagedError: there are no weights, a shard is missing, or the index of shards is damaged.
    """
    if (folder / WEIGHTS_FILE).is_file():
        return [folder / WEIGHTS_FILE]
    if (folder / WEIGHTS_INDEX_FILE).is_file():
        return _indexed_shards(folder / WEIGHTS_INDEX_FILE)
    shards = sorted(folder.glob(SHARDS))
    if not shards:
        problem = CheckpointError if any(folder.glob(OTHER_WEIGHTS)) else DamagedError
        raise problem(f"{folder} has no {WEIGHTS_FILE}, no {WEIGHTS_INDEX_FILE} and no {SHARDS}")
    _check_numbers(shards)
    return shards


def _indexed_shards(index: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise DamagedError(f"{index} is not an index of shards: {error!r}") from error
    for name in names:
        if not isinstance(name, str) or Path(name).name != name:
            raise DamagedError(f"{index} names {name!r}, which is not a file beside it")
        if not index.with_name(name).is_file():
            raise DamagedError(f"{index} names {name!r}, which is missing")
    return [index.with_name(name) for name in names]


def _check_numbers(shards: list[Path]) -> None:
    """Checks that none is missing, if their names count them: `model-00001-of-00003.safetensors`."""
    numbers = {int(match[1]): match[2] for shard in shards if (match := _SHARD.fullmatch(shard.name))}
    for count in numbers.values():
        for number in range(1, int(count) + 1):
            if number not in numbers:
                name = f"model-{number:0{len(count)}}-of-{count}.safetensors"
                raise DamagedError(f"{shards[0].parent} has shards of the weights, but not {name!r}")


def load_tokenizer(folder: Path, config: Moondream2Config) -> Tokenizer:
    """Loads a checkpoint's tokenizer; special tokens in a prompt are read as ordinary text.

    Raises:
        TokenizerError: the file is missing, damaged, or made for another model.
    """
    return read_tokenizer(folder / TOKENIZER_FILE, config)


def read_tokenizer(path: Path, config: Moondream2Config) -> Tokenizer:
    """Reads a tokenizer's file: see `load_tokenizer`."""
    if not path.is_file():
        raise TokenizerError(f"{path} is missing")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise TokenizerError(f"{path} is not a tokenizer: {error}") from error
    if tokenizer.get_vocab_size() > config.text.vocab_size:
        raise TokenizerError(
            f"{path} has {tokenizer.get_vocab_size()} tokens, more than the model's {config.text.vocab_size}"
        )
    _check_template_ids(path, tokenizer, config)
    # Prompts come from strangers: "<|endoftext|>" in a prompt must not end it.
    tokenizer.encode_special_tokens = True
    _check_special_ids(path, tokenizer, config)
    return tokenizer


def _check_template_ids(path: Path, tokenizer: Tokenizer, config: Moondream2Config) -> None:
    """Refuses a tokenizer that lacks words of the model's templates.

    A template with ids beyond the model's vocabulary is not used.
    """
    for token in sorted(config.tokenizer.template_ids):
        if token < config.text.vocab_size and tokenizer.id_to_token(token) is None:
            raise TokenizerError(
                f"{path} has no token {token}, which the model's prompts contain; "
                "it is the tokenizer of another model or of another revision"
            )


def _check_special_ids(path: Path, tokenizer: Tokenizer, config: Moondream2Config) -> None:
    """Refuses a tokenizer that reads ordinary text as a special token: it belongs to another model."""
    special = {token: name for name, token in config.tokenizer.special_ids.items()}
    for character in string.printable:
        for token in tokenizer.encode(character).ids:
            if token in special:
                raise TokenizerError(
                    f"{path} reads {character!r} as token {token}, the model's {special[token]}; "
                    "it is the tokenizer of another model or of another revision"
                )


def _read_tensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of a file, under the name that the model has for it."""
    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
        while names:
            # What is read of a file stays in memory until it is closed.
            with safe_open(path, framework="pt") as file:
                n_bytes = 0
                while names and n_bytes < _READ_AT_ONCE:
                    name = names.pop(0)
                    tensor = file.get_tensor(name)
                    n_bytes += tensor.nbytes
                    yield _name_in_model(name), tensor
                    del tensor
    except (SafetensorError, OSError) as error:
        raise DamagedError(f"{path} is damaged: {error}") from error
    except (RuntimeError, MemoryError) as error:  # PyTorch's own for a file that cannot be mapped
        raise SettingsError(f"{path} cannot be read into memory: {error}") from error


def _name_in_model(name: str) -> str:
    parts = [part for part in name.split(".") if part not in _WRAPPERS]
    while parts[:1] == [_ROOT]:
        del parts[0]
    return ".".join(parts)


def _check_tensor(path: Path, name: str, tensor: Tensor, expected: dict[str, Tensor]) -> None:
    if name not in expected:
        raise CheckpointError(f"{path.name}: tensor {name!r} is not part of a Moondream2")
    if not tensor.is_floating_point():
        raise CheckpointError(f"{path.name}: tensor {name!r} has dtype {tensor.dtype}, not a floating one")
    if tensor.shape != expected[name].shape:
        raise CheckpointError(
            f"{path.name}: tensor {name!r} has shape {tuple(tensor.shape)}, "
            f"config.json asks for {tuple(expected[name].shape)}"
        )
    low, high = torch.aminmax(tensor if tensor.itemsize > 1 else tensor.float())
    if not (torch.isfinite(low) and torch.isfinite(high)):  # both are NaN if any value is
        raise DamagedError(f"{path}: tensor {name!r} holds values that are not finite; fetch it again")


def _check_range(name: str, tensor: Tensor, dtype: torch.dtype) -> None:
    """Refuses finite values that would become infinite in a narrower dtype."""
    most = torch.finfo(dtype).max
    if torch.finfo(tensor.dtype).max <= most:
        return
    largest = max(abs(value.item()) for value in torch.aminmax(tensor))
    if largest > most:
        raise DamagedError(
            f"tensor {name!r} holds values up to {largest:.3g}, more than "
            f"{str(dtype).removeprefix('torch.')} can hold; set MOONDREAM2_DTYPE to a wider one"
        )


def _some(names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:_MAX_NAMES_IN_ERROR])
    rest = len(names) - _MAX_NAMES_IN_ERROR
    return (
        f"{shown} and {rest} more tensors are"
        if rest > 0
        else f"{shown} {'is' if len(names) == 1 else 'are'}"
    )
