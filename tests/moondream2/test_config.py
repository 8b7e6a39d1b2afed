import json

import pytest
from pydantic import ValidationError

from workflow_blocks.moondream2.config import (
    ConfigError,
    DamagedConfigError,
    Moondream2Config,
    RegionConfig,
    TextConfig,
    VisionConfig,
)


def write_config(folder, config):
    path = folder / "config.json"
    path.write_text(json.dumps({"config": config}))
    return path


def test_defaults_are_the_released_model():
    config = Moondream2Config()

    assert (config.vision.grid, config.vision.n_patches, config.prefix_length) == (27, 729, 730)
    assert (config.vision.margin_px, config.vision.window_px) == (56, 266)
    assert config.text.head_dim == 64
    assert config.tokenizer.templates.detect.prefix == (1, 7235, 476, 2)


@pytest.mark.parametrize(
    "document",
    [
        pytest.param({}, id="empty object"),
        pytest.param({"config": {}}, id="empty config"),
        pytest.param({"config": {"text": {}, "vision": {"enc_dim": 1152}}}, id="some keys"),
        pytest.param(
            {"config": {"text": {"n_kv_heads": None}, "tokenizer": {"size_id": None, "templates": {}}}},
            id="nulls",
        ),
        pytest.param(
            {"config": {"text": {"prefix_attn": 730}}, "model_type": "moondream1"}, id="unknown keys"
        ),
    ],
)
def test_from_file_uses_released_values_for_missing_keys(tmp_path, document):
    (tmp_path / "config.json").write_text(json.dumps(document))

    assert Moondream2Config.from_file(tmp_path / "config.json") == Moondream2Config()


def test_from_file_reads_every_size(golden_folder):
    config = Moondream2Config.from_file(golden_folder / "config.json")

    assert (config.text.dim, config.text.n_layers, config.vision.enc_dim) == (128, 3, 32)
    assert config.tokenizer.templates.detect.prefix == (1, 35, 36, 2)


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        pytest.param({"text": {"dim": "wide"}}, "config.text.dim", id="not a number"),
        pytest.param({"text": {"n_layers": 0}}, "config.text.n_layers", id="zero"),
        pytest.param({"text": {"dim": 130}}, "not a multiple of n_heads", id="heads do not divide"),
        pytest.param({"vision": {"crop_size": 100}}, "enc_patch_size", id="patches do not divide"),
        pytest.param({"vision": {"overlap_margin": 14}}, "overlap_margin", id="margin too wide"),
        pytest.param({"vision": {"in_channels": 1}}, "in_channels", id="grey model"),
        pytest.param({"region": {"dim": 64}}, "widths must be equal", id="widths differ"),
        pytest.param(
            {
                "text": {"vocab_size": 100},
                "tokenizer": {"templates": {"detect": {"prefix": [1, 100], "suffix": [3]}}},
            },
            "vocabulary of 100",
            id="token outside the vocabulary",
        ),
        pytest.param({"text": {"max_context": 700}}, "max_context", id="context too short"),
    ],
)
def test_from_file_names_the_entry_that_does_not_fit(tmp_path, config, problem):
    path = write_config(tmp_path, config)

    with pytest.raises(ConfigError, match=problem) as error:
        Moondream2Config.from_file(path)

    assert "config.json" in str(error.value)


PARTS = {"vision": VisionConfig, "text": TextConfig, "region": RegionConfig}
SIZES = [(part, name) for part, config in PARTS.items() for name in config.model_fields]


@pytest.mark.parametrize(
    "value", [10**7, 10**18, pytest.param(10**400, id="1e400"), -1, float("inf"), float("nan"), 1.5]
)
@pytest.mark.parametrize(("part", "name"), SIZES)
def test_from_file_names_a_size_out_of_bounds(tmp_path, part, name, value):
    with pytest.raises(ConfigError, match=rf"config\.{part}\.{name}: "):
        Moondream2Config.from_file(write_config(tmp_path, {part: {name: value}}))


@pytest.mark.parametrize(
    ("part", "sizes"),
    [
        ("vision", {"max_crops": 10**9}),
        ("vision", {"enc_n_layers": 10**5}),
        ("vision", {"crop_size": 14 * 10**6}),
        ("text", {"vocab_size": 10**18}),
        ("text", {"n_layers": 10**5}),
        ("text", {"max_context": 10**9}),
        ("region", {"coord_out_dim": 10**12}),
        ("tokenizer", {"coord_id": 10**18}),
        ("tokenizer", {"templates": {"detect": {"prefix": [1] * 10**5, "suffix": [3]}}}),
        ("tokenizer", {"templates": {"caption": {"short": [1] * 10**5}}}),
    ],
    ids=str,
)
def test_from_file_bounds_every_size(tmp_path, part, sizes):
    path = write_config(tmp_path, {part: sizes})

    with pytest.raises(ConfigError, match=rf"config\.{part}\.{next(iter(sizes))}"):
        Moondream2Config.from_file(path)


@pytest.mark.parametrize(
    "text", ["[" * 10**6, '{"config":' * 10**5, '{"config": {"text": {"dim": ' + "9" * 10**5]
)
def test_from_file_refuses_a_hostile_document(tmp_path, text):
    (tmp_path / "config.json").write_text(text)

    with pytest.raises(DamagedConfigError, match=r"config\.json"):
        Moondream2Config.from_file(tmp_path / "config.json")


@pytest.mark.parametrize("text", ["", "[]", "{", '{"config": 3}'])
def test_from_file_refuses_other_documents(tmp_path, text):
    (tmp_path / "config.json").write_text(text)

    with pytest.raises(ConfigError):
        Moondream2Config.from_file(tmp_path / "config.json")


def test_from_file_reports_a_missing_file(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        Moondream2Config.from_file(tmp_path / "config.json")


def test_sizes_cannot_change():
    with pytest.raises(ValidationError):
        VisionConfig().enc_dim = 3


def test_grouped_heads_must_divide():
    with pytest.raises(ValidationError, match="n_kv_heads"):
        TextConfig(n_heads=32, n_kv_heads=5)


@pytest.mark.parametrize("templates", [{"query": None}, {"caption": {"short": None}}])
def test_a_template_that_is_null_stays_null(tmp_path, templates):
    config = Moondream2Config.from_file(write_config(tmp_path, {"tokenizer": {"templates": templates}}))

    found = config.tokenizer.templates
    assert found.detect == Moondream2Config().tokenizer.templates.detect
    assert (found.query is None) == ("query" in templates)
    assert (found.caption.short is None) == ("caption" in templates)
    assert found.caption.long is not None
