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
from workflow_blocks.moondream2.model import Moondream2

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
WEIGHTS_INDEX_FILE = "model.safetensors.index.json"
TOKENIZER_FILE = "tokenizer.json"
SHARDS = "model-*.safetensors"

# Published files name every tensor from this root; some leave it out.
_ROOT = "model."
# Left inside names by `torch.compile`.
_COMPILED = "._orig_mod"

_MAX_NAMES_IN_ERROR = 5

_SHARD = re.compile(r"model-(\d+)-of-(\d+)\.safetensors")


class CheckpointError(ValueError):
    """A checkpoint cannot be used; the message names the file and the tensor or entry."""


class DamagedError(CheckpointError):
    """A file of a checkpoint is damaged, or was not downloaded completely."""


class TokenizerError(CheckpointError):
    """A tokenizer is missing or damaged, or belongs to another model."""


def load_model(
    folder: Path, config: Moondream2Config, device: torch.device, dtype: torch.dtype
) -> Moondream2:
    """Loads the weights of a checkpoint folder, ready to run.

    Raises:
        CheckpointError: a file is missing or damaged, or a tensor is missing, extra or of another
            shape than `config` says.
    """
    state = {name: tensor.to(device=device, dtype=dtype) for name, tensor in read_weights(folder, config)}
    model = _without_weights(config)
    model.load_state_dict(state, assign=True)
    return model.requires_grad_(False).eval()


def read_weights(folder: Path, config: Moondream2Config) -> Iterator[tuple[str, Tensor]]:
    """Reads every tensor of a checkpoint folder, under the name that the model has for it.

    Raises:
        CheckpointError: as `load_model`; missing tensors are reported at the end.
    """
    expected = _without_weights(config).state_dict()
    missing = set(expected)
    for path in weight_files(folder):
        for name, tensor in _read_tensors(path):
            _check_tensor(path, name, tensor, expected)
            if name not in missing:
                raise CheckpointError(f"{path.name}: tensor {name!r} is given twice")
            missing.remove(name)
            yield name, tensor
    if missing:
        raise CheckpointError(f"{folder}: {_some(sorted(missing))} missing from the weights")


def weight_files(folder: Path) -> list[Path]:
    """The weights' single file, or its shards in the order of their names.

    Raises:
        CheckpointError: there are no weights.
        DamagedError: a shard is missing, or the index of shards is damaged.
    """
    if (folder / WEIGHTS_FILE).is_file():
        return [folder / WEIGHTS_FILE]
    if (folder / WEIGHTS_INDEX_FILE).is_file():
        return _indexed_shards(folder / WEIGHTS_INDEX_FILE)
    shards = sorted(folder.glob(SHARDS))
    if not shards:
        raise CheckpointError(f"{folder} has no {WEIGHTS_FILE}, no {WEIGHTS_INDEX_FILE} and no {SHARDS}")
    _check_numbers(shards)
    return shards


def _indexed_shards(index: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
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


def _without_weights(config: Moondream2Config) -> Moondream2:
    with torch.device("meta"):
        return Moondream2(config)


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
    # Prompts come from strangers: "<|endoftext|>" in a prompt must not end it.
    tokenizer.encode_special_tokens = True
    _check_special_ids(path, tokenizer, config)
    return tokenizer


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
            for name in file.keys():  # noqa: SIM118 (not a dictionary)
                yield name.replace(_COMPILED, "").removeprefix(_ROOT), file.get_tensor(name)
    except (SafetensorError, OSError) as error:
        raise DamagedError(f"{path} is damaged: {error}") from error


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


def _some(names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:_MAX_NAMES_IN_ERROR])
    rest = len(names) - _MAX_NAMES_IN_ERROR
    return (
        f"{shown} and {rest} more tensors are"
        if rest > 0
        else f"{shown} {'is' if len(names) == 1 else 'are'}"
    )
