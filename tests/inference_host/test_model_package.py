"""Building packages from full-layout checkpoints with small sizes, and from damaged ones."""

import errno
import json
import os
import re
import shutil
from collections import namedtuple
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from tests.loopback import serving
from workflow_blocks.blocks.common.model_version import resolve_model_version
from workflow_blocks.commands.app import app
from workflow_blocks.inference_host import model_package
from workflow_blocks.inference_host.model import Moondream2Model
from workflow_blocks.moondream2.checkpoint import (
    CONFIG_FILE,
    TOKENIZER_FILE,
    WEIGHTS_FILE,
    WEIGHTS_INDEX_FILE,
)


@pytest.fixture(autouse=True)
def empty_hub_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture
def published(tmp_path, golden_folder):
    """A published checkpoint with small sizes; `change` edits its weights."""

    def publish(dtype=torch.float32, sharded=False, change=lambda weights: None, index=True):
        folder = tmp_path / "published"
        folder.mkdir()
        for name in (CONFIG_FILE, TOKENIZER_FILE):
            shutil.copy(golden_folder / name, folder / name)
        weights = {name: tensor.to(dtype) for name, tensor in load_file(golden_folder / WEIGHTS_FILE).items()}
        change(weights)
        names = sorted(weights)
        shards = {WEIGHTS_FILE: names}
        if sharded:
            shards = {f"model-0000{i + 1}-of-00003.safetensors": names[i::3] for i in range(3)}
            places = {name: shard for shard, members in shards.items() for name in members}
            if index:
                (folder / WEIGHTS_INDEX_FILE).write_text(json.dumps({"metadata": {}, "weight_map": places}))
        for shard, members in shards.items():
            save_file({name: weights[name].contiguous() for name in members}, folder / shard)
        return folder

    return publish


def build(*arguments):
    return CliRunner().invoke(app, ["build-model", *map(str, arguments)])


def test_the_default_output_is_used_by_the_line_that_is_printed(
    published, tmp_path, model_manager, golden_folder, monkeypatch
):
    monkeypatch.chdir(tmp_path)

    result = build("--weights", published())

    (printed,) = re.findall(r'"model_version": "(.*)"', result.output)
    assert printed == str(tmp_path / "moondream2")
    model_id = resolve_model_version(printed)
    model_manager.add_model(model_id=model_id, api_key=None)
    image = cv2.imread(str(golden_folder / "images" / "0_300x200.png"))
    (found,) = model_manager.run_tensor_native_inference(model_id, images=[image], classes=["red circle"])
    assert len(found.xyxy) > 0


def assert_nothing_written(output):
    assert not output.exists()
    assert not [path.name for path in output.parent.iterdir() if path.name.startswith(f".{output.name}")]


@pytest.mark.parametrize("sharded", [False, True], ids=["one file", "shards"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_built_package_detects_through_inferences_model_manager(
    published, tmp_path, model_manager, golden_folder, dtype, sharded
):
    folder, output = published(dtype, sharded), tmp_path / "a package"

    result = build("--weights", folder, "--output", output)

    assert result.exit_code == 0, result.output
    assert "export ALLOW_INFERENCE_MODELS_DIRECTLY_ACCESS_LOCAL_PACKAGES=True" in result.output
    assert f'"model_version": "{output.resolve()}"' in result.output
    asked = {
        "images": [cv2.imread(str(golden_folder / "images" / "0_300x200.png"))],
        "classes": ["red circle", "dog"],
        "input_color_format": "bgr",
        "max_new_tokens": 9,
    }
    model_manager.add_model(model_id=str(output), api_key=None)
    (found,) = model_manager.run_tensor_native_inference(model_id=str(output), **asked)
    (expected,) = Moondream2Model.from_pretrained(str(folder)).detect(**asked)
    assert len(found.xyxy) > 0
    torch.testing.assert_close(found.xyxy, expected.xyxy)


@pytest.mark.parametrize("prefix", ["_orig_mod.model.", "module.", "module._orig_mod.model._orig_mod."])
def test_weights_as_training_saves_them_load_everywhere(
    published, tmp_path, model_manager, golden_folder, prefix
):
    """The runtime, `build-model` and the server's model manager read the same names."""

    def rename(weights):
        renamed = {prefix + name.removeprefix("model."): tensor for name, tensor in weights.items()}
        weights.clear()
        weights.update(renamed)

    folder, output = published(change=rename), tmp_path / "package"
    image = cv2.imread(str(golden_folder / "images" / "0_300x200.png"))
    asked = {"images": [image], "classes": ["red circle"], "max_new_tokens": 9}

    result = build("--weights", folder, "--output", output)

    assert result.exit_code == 0, result.output
    (expected,) = Moondream2Model.from_pretrained(str(golden_folder)).detect(**asked)
    (loaded,) = Moondream2Model.from_pretrained(str(folder)).detect(**asked)
    model_manager.add_model(model_id=str(output), api_key=None)
    (served,) = model_manager.run_tensor_native_inference(model_id=str(output), **asked)
    assert len(expected.xyxy) > 0
    torch.testing.assert_close(loaded.xyxy, expected.xyxy)
    torch.testing.assert_close(served.xyxy, expected.xyxy)


def test_weights_are_linked_and_the_rest_is_copied(published, tmp_path):
    folder, output = published(), tmp_path / "package"

    result = build("--weights", folder, "--output", output)

    assert "linked" in result.output
    assert output.stat().st_mode & 0o777 == 0o755  # Inference may run as another user
    assert (output / WEIGHTS_FILE).samefile(folder / WEIGHTS_FILE)
    assert not (output / CONFIG_FILE).samefile(folder / CONFIG_FILE)


def test_weights_on_another_disk_are_copied(published, tmp_path, monkeypatch):
    folder, output = published(), tmp_path / "package"
    monkeypatch.setattr(os, "link", fail_with(errno.EXDEV))

    result = build("--weights", folder, "--output", output)

    assert result.exit_code == 0
    assert "copied" in result.output
    assert (output / WEIGHTS_FILE).read_bytes() == (folder / WEIGHTS_FILE).read_bytes()


def fail_with(code):
    def fail(*_, **__):
        raise OSError(code, os.strerror(code))

    return fail


def set_config(change):
    def apply(folder):
        document = json.loads((folder / CONFIG_FILE).read_text())
        change(document["config"])
        (folder / CONFIG_FILE).write_text(json.dumps(document))

    return apply


def cut(name):
    def apply(folder):
        path = folder / name
        path.write_bytes(path.read_bytes()[:-100])

    return apply


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        pytest.param(lambda f: (f / WEIGHTS_FILE).unlink(), WEIGHTS_FILE, id="no weights"),
        pytest.param(cut(WEIGHTS_FILE), "damaged", id="cut weights"),
        pytest.param(lambda f: (f / CONFIG_FILE).unlink(), CONFIG_FILE, id="no config"),
        pytest.param(cut(CONFIG_FILE), CONFIG_FILE, id="cut config"),
        pytest.param(cut(TOKENIZER_FILE), "not a tokenizer", id="cut tokenizer"),
        pytest.param(
            set_config(lambda c: c["region"].update(coord_out_dim=512)),
            "coord_decoder.fc2",
            id="region layout",
        ),
        pytest.param(
            set_config(lambda c: c["text"].update(vocab_size=51200)),
            "shape",
            id="vocabulary of another revision",
        ),
        pytest.param(
            set_config(lambda c: c["tokenizer"].update(eos_id=50256)),
            "50256",
            id="token ids of another revision",
        ),
    ],
)
def test_a_damaged_checkpoint_is_reported_and_nothing_is_written(published, tmp_path, damage, told):
    folder, output = published(), tmp_path / "package"
    damage(folder)

    result = build("--weights", folder, "--output", output)

    assert result.exit_code == 1
    assert told in result.output
    assert isinstance(result.exception, SystemExit)
    assert_nothing_written(output)


def test_a_tokenizer_that_reads_text_as_special_tokens_is_refused(published, tmp_path):
    """As those of older Moondreams do: in GPT-2's, token 0 is '!'."""
    folder, output = published(), tmp_path / "package"
    document = json.loads((folder / TOKENIZER_FILE).read_text())
    vocabulary, special = document["model"]["vocab"], [token["content"] for token in document["added_tokens"]]
    ordinary = sorted((name for name in vocabulary if name not in special), key=vocabulary.get)
    document["added_tokens"] = []
    document["model"]["vocab"] = {name: number for number, name in enumerate([*ordinary, *special])}
    (folder / TOKENIZER_FILE).write_text(json.dumps(document))

    result = build("--weights", folder, "--output", output)

    assert result.exit_code == 1
    assert "tokenizer of another model" in result.output
    assert_nothing_written(output)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_with_infinite_values_are_refused(published, tmp_path, value):
    folder = published(change=lambda weights: weights["model.text.wte"][3].fill_(value))

    result = build("--weights", folder, "--output", tmp_path / "package")

    assert result.exit_code == 1
    assert "'text.wte'" in result.output
    assert_nothing_written(tmp_path / "package")


def test_shards_without_an_index_are_used(published, tmp_path):
    folder, output = published(sharded=True, index=False), tmp_path / "package"

    result = build("--weights", folder, "--output", output)

    assert result.exit_code == 0, result.output
    assert Moondream2Model.from_pretrained(str(output)).about()["runtime"] == "workflow_blocks"


@pytest.mark.parametrize("index", [True, False], ids=["index", "no index"])
def test_a_missing_shard_is_named(published, tmp_path, index):
    folder = published(sharded=True, index=index)
    (folder / "model-00002-of-00003.safetensors").unlink()

    result = build("--weights", folder, "--output", tmp_path / "package")

    assert result.exit_code == 1
    assert "model-00002-of-00003.safetensors" in result.output
    assert_nothing_written(tmp_path / "package")


def test_a_full_disk_leaves_no_partial_package(published, tmp_path, monkeypatch):
    folder, output = published(), tmp_path / "package"
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(os, "link", fail_with(errno.EXDEV))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 1000, 1000))

    result = build("--weights", folder, "--output", output)

    assert result.exit_code == 1
    assert "free some space" in result.output
    assert_nothing_written(output)


def test_an_interrupt_leaves_no_partial_package(published, tmp_path, monkeypatch):
    folder, output = published(), tmp_path / "package"

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "link", interrupt)

    with pytest.raises(KeyboardInterrupt):
        model_package.build_package(folder, folder / TOKENIZER_FILE, output)

    assert_nothing_written(output)


def test_an_output_that_is_not_writable_is_reported(published, tmp_path):
    folder = published()
    (tmp_path / "file").touch()

    result = build("--weights", folder, "--output", tmp_path / "file" / "package")

    assert result.exit_code == 1
    assert "choose another --output" in result.output


def test_an_existing_output_is_not_changed(published, tmp_path):
    folder, output = published(), tmp_path / "package"
    output.mkdir()
    (output / "mine.txt").write_text("mine")

    result = build("--weights", folder, "--output", output)

    assert result.exit_code == 1
    assert "exists already" in result.output
    assert [path.name for path in output.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        pytest.param(["--weights", "no/such/folder"], "neither a folder nor a hub id", id="no folder"),
        pytest.param(["--weights", "."], WEIGHTS_FILE, id="not a checkpoint"),
        pytest.param(["--weights", ".", "--revision", "main"], "--revision", id="revision of a folder"),
    ],
)
def test_missing_weights_are_reported(tmp_path, monkeypatch, arguments, told):
    monkeypatch.chdir(tmp_path)
    (tmp_path / TOKENIZER_FILE).touch()

    result = build(*arguments, "--output", tmp_path / "package")

    assert result.exit_code == 1
    assert told in result.output
    assert_nothing_written(tmp_path / "package")


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as downloads ask for: two repositories, each at one revision."""

    def __init__(self, *arguments, folder, **others):
        self.repositories = {
            "/vikhyatk/moondream2": ("2025-06-21", [CONFIG_FILE, WEIGHTS_FILE, "handler.py"]),
            "/moondream/starmie-v1": ("main", [TOKENIZER_FILE]),
        }
        self.folder = folder
        super().__init__(*arguments, **others)

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def answer(self):
        for repository, (revision, names) in self.repositories.items():
            if self.path == f"/api/models{repository}/revision/{revision}":
                siblings = [{"rfilename": name} for name in names]
                return self.send(
                    200, json.dumps({"id": repository, "sha": "a" * 40, "siblings": siblings}).encode()
                )
            for name in names:
                if self.path in (f"{repository}/resolve/{at}/{name}" for at in ("a" * 40, revision)):
                    return self.send(200, (self.folder / name).read_bytes())
            if self.path.startswith(f"/api/models{repository}/revision/"):
                return self.send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        if self.path.startswith("/api/models/someone/gated/"):
            return self.send(403, b"{}", {"X-Error-Code": "GatedRepo"})
        return self.send(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    def send(self, status, body, headers=()):
        self.send_response(status)
        for name, value in {
            "Content-Length": str(len(body)),
            "ETag": f'"{hash(body)}"',
            "X-Repo-Commit": "a" * 40,
            **dict(headers),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_):
        pass


def use_hub(monkeypatch, address, cache):
    """Does what HF_ENDPOINT and HF_HOME do; `huggingface_hub` reads them when it is imported."""
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # Inference sets it under OFFLINE_MODE


@pytest.fixture
def hub(published, tmp_path, monkeypatch):
    folder = published()
    (folder / "handler.py").write_text("raise SystemExit('code that came with the weights ran')")
    with serving(ThreadingHTTPServer(("127.0.0.1", 0), partial(Hub, folder=folder))) as address:
        use_hub(monkeypatch, address, tmp_path / "cache")
        yield


def test_weights_come_from_the_hub(hub, tmp_path):
    output = tmp_path / "package"

    result = build("--output", output)

    assert result.exit_code == 0, result.output
    assert "Built" in result.output
    assert sorted(path.name for path in output.iterdir()) == [
        CONFIG_FILE,
        "model.py",
        WEIGHTS_FILE,
        "model_config.json",
        TOKENIZER_FILE,
    ]
    assert not list(tmp_path.glob("cache/**/handler.py"))


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        pytest.param(["--revision", "2024-01-01"], "no revision '2024-01-01'", id="no such revision"),
        pytest.param(["--weights", "someone/else"], "neither a folder nor a repository", id="no repository"),
        pytest.param(["--weights", "someone/gated"], "someone/gated is gated", id="gated"),
    ],
)
def test_errors_of_the_hub_are_reported(hub, tmp_path, arguments, problem):
    result = build("--output", tmp_path / "package", *arguments)

    assert result.exit_code == 1
    assert problem in result.output
    assert isinstance(result.exception, SystemExit)
    assert_nothing_written(tmp_path / "package")


def test_an_unreachable_hub_is_reported(tmp_path, monkeypatch):
    use_hub(monkeypatch, "http://127.0.0.1:9", tmp_path / "cache")

    result = build("--output", tmp_path / "package")

    assert result.exit_code == 1
    assert "could not be downloaded" in result.output
    assert "check the network" in " ".join(result.output.split())
    assert_nothing_written(tmp_path / "package")
