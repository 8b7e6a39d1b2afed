"""Packages as they are downloaded, loaded by the class that stands in Inference's registry."""

import errno
import json
import logging
import os
import shutil

import cv2
import numpy as np
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError
from inference_models.errors import CorruptedModelPackageError
from safetensors.torch import load_file, save_file

from tests.stand_ins import (
    GOLDEN,
    OLDER_CONFIG_CODE,
    Provider,
    published_package,
    running_provider,
    with_older_tokenizer,
)
from workflow_blocks.inference_host import provider_model
from workflow_blocks.inference_host.provider_model import ProviderMoondream2
from workflow_blocks.inference_host.runtime_choice import RuntimeChoiceError
from workflow_blocks.moondream2.settings import SettingsError


@pytest.fixture
def mark(tmp_path, monkeypatch):
    """A file that exists once Python of a package was run."""
    monkeypatch.setenv("MARK_FILE", str(tmp_path / "mark"))
    return tmp_path / "mark"


@pytest.fixture(autouse=True)
def hub_cache(tmp_path, monkeypatch):
    """An empty cache of the hub."""
    monkeypatch.setattr(provider_model, "HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture
def package(tmp_path):
    return published_package(tmp_path / "package")


def load(folder, **options):
    return ProviderMoondream2.from_pretrained(str(folder), device="cpu", **options)


def files_of(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.rglob("*")}


def edit_config(folder, **document):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | document))


@pytest.mark.parametrize("shards", [0, 3])
@pytest.mark.parametrize("choice", ["auto", "own", ""])
def test_a_package_runs_on_our_runtime_and_stays_as_it_is(tmp_path, monkeypatch, mark, shards, choice):
    folder = published_package(tmp_path / "package", shards=shards)
    monkeypatch.setenv("MOONDREAM2_RUNTIME", choice)
    before = files_of(folder)

    model = load(folder)
    (found,) = model.detect(cv2.imread(str(GOLDEN / "images/0_300x200.png")), ["red circle"])

    assert model.about() == {
        "runtime": "workflow_blocks",
        "device": "cpu",
        "dtype": "float32",
        "max_crops": "12",
    }
    assert 0 < found.confidence.max() < 1
    assert files_of(folder) == before
    assert not mark.exists()


def refuse_revision(folder):
    (folder / "config.py").write_text(OLDER_CONFIG_CODE)


def refuse_architecture(folder):
    edit_config(folder, architectures=["Florence2ForConditionalGeneration"])


def refuse_sizes(folder):
    sizes = json.loads((folder / "config.json").read_text())["config"]
    sizes["vision"]["enc_ff_dim"] *= 2
    edit_config(folder, config=sizes)


def refuse_format(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


REFUSED = [
    pytest.param(refuse_revision, "another revision", id="older revision"),
    pytest.param(refuse_architecture, "Florence2", id="architecture"),
    pytest.param(refuse_sizes, "shape", id="sizes"),
    pytest.param(refuse_format, "has no model.safetensors", id="no safetensors"),
]


@pytest.mark.parametrize(("refuse", "reason"), REFUSED)
def test_auto_falls_back_and_logs_the_reason_once(package, mark, caplog, refuse, reason):
    refuse(package)

    with caplog.at_level(logging.WARNING, "workflow_blocks"):
        models = [load(package) for _ in range(2)]

    (found,) = models[1].detect(np.zeros((40, 80, 3), np.uint8), ["dog"])
    assert found.xyxy.tolist() == [[20, 10, 60, 30]]
    assert "hf_moondream.py" in mark.read_text()
    assert [reason in record.message for record in caplog.records] == [True]
    assert "runs the Python code of the package" in caplog.text


@pytest.mark.parametrize(("refuse", "reason"), REFUSED)
def test_own_refuses_and_runs_nothing(package, mark, monkeypatch, refuse, reason):
    monkeypatch.setenv("MOONDREAM2_RUNTIME", "own")
    refuse(package)

    with pytest.raises(CorruptedModelPackageError, match=reason) as raised:
        load(package)

    assert "MOONDREAM2_RUNTIME=own" in str(raised.value)
    assert not mark.exists()


def test_a_fallback_that_fails_too_names_both_reasons(package):
    refuse_revision(package)
    (package / "hf_moondream.py").unlink()

    with pytest.raises(
        CorruptedModelPackageError, match=r"another revision.*own class cannot load it.*hf_moondream"
    ):
        load(package)


def test_inference_is_inferences_own_class(package, mark, monkeypatch):
    monkeypatch.setenv("MOONDREAM2_RUNTIME", "inference")

    assert not hasattr(load(package), "about")
    assert mark.exists()


def cut(name):
    def damage(folder):
        file = folder / name
        file.write_bytes(file.read_bytes()[:-100])

    return damage


def remove(name):
    return lambda folder: (folder / name).unlink()


def edit_weights(edit):
    def damage(folder):
        state = load_file(folder / "model.safetensors")
        edit(state)
        save_file(state, folder / "model.safetensors")

    return damage


def keep_one_part(folder):
    """As a download leaves it that broke off; the part's name does not count the parts."""
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    save_file(dict(list(state.items())[:3]), folder / "model-a.safetensors")


def put_nan(folder):
    weights = load_file(folder / "model.safetensors")
    next(iter(weights.values())).view(-1)[-1] = float("nan")
    save_file(weights, folder / "model.safetensors")


def remove_a_shard(folder):
    shutil.rmtree(folder)
    published_package(folder, shards=3)
    (folder / "model-00002-of-00003.safetensors").unlink()


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        pytest.param(cut("model.safetensors"), "model.safetensors is damaged", id="weights"),
        pytest.param(put_nan, "holds values that are not finite; fetch it again", id="not a number"),
        pytest.param(cut("config.json"), "config.json", id="config"),
        pytest.param(remove("config.json"), "config.json", id="no config"),
        pytest.param(remove_a_shard, "model-00002-of-00003", id="shard"),
        pytest.param(
            lambda folder: (folder / "model.safetensors").unlink(), "no model.safet", id="no weights"
        ),
        pytest.param(edit_weights(lambda state: state.popitem()), "missing from the weights", id="a tensor"),
        pytest.param(keep_one_part, "missing from the weights", id="a part"),
        pytest.param(
            lambda folder: (folder / "config.py").write_text("class TokenizerConfig:\n    bos_id: int = ("),
            "config.py is not a Python file",
            id="code",
        ),
    ],
)
def test_a_damaged_package_is_an_error_and_the_next_try_works(package, mark, damage, named):
    damage(package)

    with pytest.raises(CorruptedModelPackageError, match=named):
        load(package)

    shutil.rmtree(package)
    assert load(published_package(package)).about()["runtime"] == "workflow_blocks"
    assert not mark.exists()


@pytest.fixture
def hub(monkeypatch):
    """A stand-in for the hub that is asked, although the tests run offline."""
    provider = Provider({}, {"moondream/starmie-v1/tokenizer.json": GOLDEN / "tokenizer.json"})
    with running_provider(provider):
        files = f"{provider.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", provider.address)
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", files)
        yield provider


def test_a_tokenizer_that_does_not_fit_is_replaced_and_found_again_offline(package, hub, mark):
    with_older_tokenizer(package)
    assert load(package).about()["runtime"] == "workflow_blocks"
    asked = len(hub.requests)
    assert asked > 0

    assert load(package, local_files_only=True).about()["runtime"] == "workflow_blocks"

    assert len(hub.requests) == asked
    assert not mark.exists()


def test_without_a_tokenizer_beside_the_weights_the_released_one_is_used(package, hub):
    (package / "tokenizer.json").unlink()

    assert load(package).about()["runtime"] == "workflow_blocks"


@pytest.mark.parametrize(
    "files",
    [
        pytest.param({}, id="hub without it"),
        pytest.param(
            {"moondream/starmie-v1/tokenizer.json": GOLDEN / "config.json"}, id="hub with another file"
        ),
    ],
)
def test_without_a_tokenizer_that_fits_the_error_names_both(package, hub, mark, files):
    with_older_tokenizer(package)
    hub.hub_files = files

    with pytest.raises(CorruptedModelPackageError) as raised:
        load(package)

    assert str(package / "tokenizer.json") in str(raised.value)
    assert "starmie-v1" in str(raised.value)
    assert not mark.exists()


def test_offline_without_the_released_tokenizer_the_error_names_both(package, mark):
    with_older_tokenizer(package)

    with pytest.raises(CorruptedModelPackageError, match=r"package/tokenizer.json.*moondream/starmie-v1"):
        load(package, local_files_only=True)

    assert not mark.exists()


def test_a_hub_that_cannot_be_reached_is_named(package, hub, mark, monkeypatch):
    nowhere = "http://127.0.0.1:9"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", nowhere)
    monkeypatch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
        f"{nowhere}/{{repo_id}}/resolve/{{revision}}/{{filename}}",
    )
    with_older_tokenizer(package)

    with pytest.raises(CorruptedModelPackageError, match=r"moondream/starmie-v1 could not be downloaded"):
        load(package)

    assert not hub.requests
    assert not mark.exists()


def test_a_cached_tokenizer_that_is_damaged_is_downloaded_again(package, hub, tmp_path):
    (package / "tokenizer.json").unlink()
    load(package)
    for cached in (tmp_path / "hub").rglob("blobs/*"):
        cached.write_bytes(cached.read_bytes()[:-100])

    assert load(package).about()["runtime"] == "workflow_blocks"


def test_a_full_disk_is_named(package, monkeypatch):
    (package / "tokenizer.json").unlink()

    def fail(*_, local_files_only=False, **__):
        if local_files_only:
            raise LocalEntryNotFoundError("not in the cache")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("workflow_blocks.inference_host.hub.hf_hub_download", fail)

    with pytest.raises(CorruptedModelPackageError, match="No space left on device; free some space"):
        load(package)


@pytest.mark.parametrize(
    ("name", "error"), [("MOONDREAM2_RUNTIME", RuntimeChoiceError), ("MOONDREAM2_DTYPE", SettingsError)]
)
def test_an_invalid_setting_is_an_error_and_no_reason_to_fall_back(package, mark, monkeypatch, name, error):
    monkeypatch.setenv(name, "fast")

    with pytest.raises(error, match=f"{name}='fast'"):
        load(package)

    assert not mark.exists()
