"""Damage of every kind to a checkpoint; the golden one is the base."""

import json
import math
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from workflow_blocks.moondream2.checkpoint import (
    TOKENIZER_FILE,
    WEIGHTS_FILE,
    WEIGHTS_INDEX_FILE,
    CheckpointError,
    DamagedError,
    TokenizerError,
    load_model,
    load_tokenizer,
)
from workflow_blocks.moondream2.config import Moondream2Config
from workflow_blocks.moondream2.runtime import Runtime
from workflow_blocks.settings_error import SettingsError


@pytest.fixture
def checkpoint(tmp_path, golden_folder):
    for name in ("config.json", WEIGHTS_FILE, TOKENIZER_FILE):
        shutil.copy(golden_folder / name, tmp_path / name)
    return tmp_path


def load(folder, dtype=torch.float32):
    config = Moondream2Config.from_file(folder / "config.json")
    return load_model(folder, config, torch.device("cpu"), dtype)


def change_weights(folder, change):
    """Rewrites the weights; `change` edits the dictionary in place."""
    weights = load_file(folder / WEIGHTS_FILE)
    change(weights)
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, folder / WEIGHTS_FILE)


def rename(old, new):
    def change(weights):
        renamed = {name.replace(old, new): tensor for name, tensor in weights.items()}
        weights.clear()
        weights.update(renamed)

    return change


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda weights: None, id="published"),
        pytest.param(rename("model.", ""), id="without the root"),
        pytest.param(rename(".blocks", "._orig_mod.blocks"), id="compiled part"),
        pytest.param(rename("model.", "_orig_mod.model."), id="compiled"),
        pytest.param(rename("model.", "model._orig_mod."), id="compiled inside"),
        pytest.param(rename("model.", "_orig_mod."), id="compiled, without the root"),
        pytest.param(rename(".weight", "._orig_mod.weight"), id="compiled layers"),
        pytest.param(rename("model.", "module.model."), id="of several devices"),
        pytest.param(rename("model.", "module."), id="of several devices, without the root"),
        pytest.param(rename("model.text.", "model.text.module."), id="a part of several devices"),
        pytest.param(rename("model.", "module._orig_mod.model."), id="compiled, of several devices"),
        pytest.param(rename("model.", "_orig_mod.module.model."), id="of several devices, compiled"),
        pytest.param(rename("model.", "model.model."), id="the root twice"),
    ],
)
def test_load_model_takes_every_published_naming(checkpoint, golden_detector, change):
    change_weights(checkpoint, change)

    model = load(checkpoint)

    torch.testing.assert_close(model.state_dict(), golden_detector.model.state_dict())


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16, torch.float32])
def test_load_model_casts_to_the_requested_dtype(checkpoint, stored):
    change_weights(checkpoint, lambda weights: weights.update({n: t.to(stored) for n, t in weights.items()}))

    model = load(checkpoint, torch.bfloat16)

    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


def test_load_model_reads_shards(checkpoint, golden_detector):
    weights = load_file(checkpoint / WEIGHTS_FILE)
    names = sorted(weights)
    shards = {"a.safetensors": names[: len(names) // 2], "b.safetensors": names[len(names) // 2 :]}
    for shard, members in shards.items():
        save_file({name: weights[name] for name in members}, checkpoint / shard)
    index = {"weight_map": {name: shard for shard, members in shards.items() for name in members}}
    (checkpoint / WEIGHTS_INDEX_FILE).write_text(json.dumps(index))
    (checkpoint / WEIGHTS_FILE).unlink()

    torch.testing.assert_close(load(checkpoint).state_dict(), golden_detector.model.state_dict())

    (checkpoint / "b.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"b\.safetensors.*missing"):
        load(checkpoint)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        pytest.param(lambda w: w.pop("model.text.wte"), r"'text\.wte' is missing", id="missing"),
        pytest.param(
            lambda w: w.update({"model.text.extra": torch.zeros(1)}), r"'text\.extra' is not part", id="extra"
        ),
        pytest.param(
            lambda w: w.update({"model.text.post_ln.bias": torch.zeros(7)}),
            r"'text\.post_ln\.bias' has shape \(7,\).*\(128,\)",
            id="shape",
        ),
        pytest.param(
            lambda w: w.update({"model.text.post_ln.bias": torch.zeros(128, dtype=torch.int8)}),
            r"'text\.post_ln\.bias' has dtype torch\.int8",
            id="dtype",
        ),
        pytest.param(
            lambda w: w.update({"text.wte": w["model.text.wte"].clone()}), "given twice", id="twice"
        ),
        pytest.param(
            lambda w: w.update({"module._orig_mod.text.wte": w["model.text.wte"].clone()}),
            "given twice",
            id="twice, once compiled",
        ),
        pytest.param(rename("model.text.blocks", "model.text.layers"), "is not part", id="other layout"),
    ],
)
def test_load_model_names_the_wrong_tensor(checkpoint, change, problem):
    change_weights(checkpoint, change)

    with pytest.raises(CheckpointError, match=problem):
        load(checkpoint)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"not tensors" * 9, id="noise"),
        pytest.param(None, id="cut"),
    ],
)
def test_load_model_reports_a_damaged_file(checkpoint, content):
    path = checkpoint / WEIGHTS_FILE
    path.write_bytes(path.read_bytes()[:-1000] if content is None else content)

    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged"):
        load(checkpoint)


@pytest.mark.parametrize(
    "index",
    [
        pytest.param("{", id="not JSON"),
        pytest.param("[]", id="not an object"),
        pytest.param("[" * 10**6, id="nested too deep"),
        pytest.param('{"weight_map": []}', id="not a map"),
        pytest.param('{"weight_map": {"a": "../secret.safetensors"}}', id="outside the folder"),
        pytest.param('{"weight_map": {"a": "/etc/passwd"}}', id="absolute"),
    ],
)
def test_load_model_refuses_an_invalid_index(checkpoint, index):
    (checkpoint / WEIGHTS_FILE).unlink()
    (checkpoint / WEIGHTS_INDEX_FILE).write_text(index)

    with pytest.raises(CheckpointError, match=r"index\.json"):
        load(checkpoint)


def test_load_model_reports_missing_weights(checkpoint):
    (checkpoint / WEIGHTS_FILE).unlink()

    with pytest.raises(CheckpointError, match=WEIGHTS_FILE):
        load(checkpoint)


def test_load_tokenizer_reads_special_tokens_as_text(checkpoint):
    config = Moondream2Config.from_file(checkpoint / "config.json")

    tokens = load_tokenizer(checkpoint, config).encode(" <|endoftext|>").ids

    assert config.tokenizer.eos_id not in tokens


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"version": "1.0"}'])
def test_load_tokenizer_reports_a_damaged_file(checkpoint, content):
    (checkpoint / TOKENIZER_FILE).write_text(content)

    with pytest.raises(CheckpointError, match="is not a tokenizer"):
        load_tokenizer(checkpoint, Moondream2Config())


def test_load_tokenizer_reports_a_missing_file(tmp_path):
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is missing"):
        load_tokenizer(tmp_path, Moondream2Config())


def test_load_tokenizer_refuses_more_tokens_than_the_model_has(checkpoint):
    config = Moondream2Config.model_validate(
        {
            "text": {"vocab_size": 100},
            "tokenizer": {"templates": {"detect": {"prefix": [1], "suffix": [3]}}},
        }
    )

    with pytest.raises(CheckpointError, match="more than the model's 100"):
        load_tokenizer(checkpoint, config)


@pytest.mark.parametrize(
    ("stored", "value", "dtype"),
    [
        (torch.float64, 1e300, torch.float32),
        (torch.float64, -1e300, torch.int8),
        (torch.float32, 1e5, torch.float16),
        (torch.bfloat16, -1e5, torch.float16),
    ],
    ids=str,
)
def test_values_that_the_dtype_cannot_hold_are_named(checkpoint, stored, value, dtype):
    def change(weights):
        weights["model.text.wte"] = weights["model.text.wte"].to(stored)
        weights["model.text.wte"].view(-1)[3] = value

    change_weights(checkpoint, change)

    with pytest.raises(DamagedError, match=r"tensor .text.wte. holds values up to [0-9.]+e"):
        Runtime.from_folder(checkpoint, dtype=dtype)


def test_a_file_that_cannot_be_mapped_into_memory_is_an_error_of_this_machine(checkpoint, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("unable to mmap 745733144 bytes from file: Cannot allocate memory (12)")

    monkeypatch.setattr("workflow_blocks.moondream2.checkpoint.safe_open", fail)

    with pytest.raises(SettingsError, match="cannot be read into memory: unable to mmap"):
        Runtime.from_folder(checkpoint)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf], ids=str)
@pytest.mark.parametrize("place", [0, -1, slice(None)], ids=str)
def test_values_that_are_not_finite_are_named(checkpoint, dtype, value, place):
    name = "model.text.wte"

    def change(weights):
        weights[name] = weights[name].to(dtype)
        weights[name].view(-1)[place] = value

    change_weights(checkpoint, change)

    with pytest.raises(DamagedError, match=r"tensor 'text.wte' holds values that are not finite"):
        load(checkpoint)


def test_load_tokenizer_refuses_a_tokenizer_without_the_words_of_the_templates(checkpoint):
    with pytest.raises(TokenizerError, match="has no token 476, which the model's prompts contain"):
        load_tokenizer(checkpoint, Moondream2Config())
