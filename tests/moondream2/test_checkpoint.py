"""Damage of every kind to a checkpoint; the golden one is the base."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from workflow_blocks.moondream2.checkpoint import (
    TOKENIZER_FILE,
    WEIGHTS_FILE,
    WEIGHTS_INDEX_FILE,
    CheckpointError,
    load_model,
    load_tokenizer,
)
from workflow_blocks.moondream2.config import Moondream2Config


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
        pytest.param(rename(".blocks", "._orig_mod.blocks"), id="compiled"),
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
