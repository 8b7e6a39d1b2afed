"""The command `workflow-blocks serve`, where it does not come to serving."""

import json
import socket
from hashlib import sha256
from io import StringIO

import pytest
from rich.console import Console
from typer.testing import CliRunner

from workflow_blocks.commands.app import app


def test_a_port_in_use_is_reported_at_once():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = CliRunner().invoke(app, ["serve", "--port", str(port)])

    assert result.exit_code == 1
    assert f"cannot listen on 127.0.0.1:{port}" in result.output
    assert "--port" in result.output


def test_an_address_of_another_machine_is_reported():
    result = CliRunner().invoke(app, ["serve", "--host", "192.0.2.1"])

    assert result.exit_code == 1
    assert "cannot listen on 192.0.2.1:9001" in result.output


@pytest.mark.parametrize("name", ["missing", "file"])
def test_a_read_directory_that_is_no_folder_is_reported_at_once(tmp_path, name):
    (tmp_path / "file").write_text("no folder")

    result = CliRunner().invoke(app, ["serve", "--port", "0", "--read-directory", str(tmp_path / name)])

    assert result.exit_code == 1
    assert "give another --read-directory" in " ".join(result.output.split())


@pytest.mark.parametrize(("token", "end"), [(None, "/playground"), ("abc", "/playground#token=abc")])
def test_the_address_of_the_playground_is_printed_with_its_token(token, end):
    from workflow_blocks.running.server import _announce

    console = Console(file=StringIO(), soft_wrap=True)
    _announce(console, "http://192.0.2.7:9001", token)

    assert f"Playground: http://192.0.2.7:9001{end}\n" in console.file.getvalue()


@pytest.mark.parametrize(
    ("environment", "shown"),
    [
        ({}, ["MOONDREAM2_DTYPE=auto", "run in", "MOONDREAM2_MAX_CROPS=the model's own"]),
        ({"DTYPE": "float32", "MAX_CROPS": "4"}, ["MOONDREAM2_DTYPE=float32  on cpu", "MAX_CROPS=4"]),
        ({"JOIN_REQUESTS": "no", "IMAGE_CACHE_MB": ""}, ["MOONDREAM2_JOIN_REQUESTS=False"]),
    ],
)
def test_the_settings_of_the_runtime_are_printed(monkeypatch, environment, shown):
    from workflow_blocks.running.server import _announce

    for name, value in environment.items():
        monkeypatch.setenv(f"MOONDREAM2_{name}", value)
    monkeypatch.setenv("MOONDREAM2_DEVICE", "cpu")
    console = Console(file=StringIO(), soft_wrap=True)
    _announce(console, "http://127.0.0.1:9001", None)

    assert [text for text in shown if text not in console.file.getvalue()] == []
    assert "IMAGE_CACHE_MB" not in console.file.getvalue()


@pytest.fixture
def saved(tmp_path, monkeypatch):
    """What is saved under a workflow's name."""
    monkeypatch.setattr("inference.core.env.MODEL_CACHE_DIR", str(tmp_path))
    return tmp_path / "workflow" / "local" / f"{sha256(b'count_by_prompt').hexdigest()}.json"


def test_bundled_definitions_are_updated_and_those_of_users_are_kept(saved):
    from workflow_blocks.running.server import install_definitions

    install_definitions()
    first = saved.read_text()
    saved.write_text(first.replace("count_by_prompt", "an older release"))
    install_definitions()
    assert saved.read_text() == first
    saved.write_text(first[:40])  # as a server that was killed would have left it
    install_definitions()
    assert saved.read_text() == first

    own = json.dumps({"id": "count_by_prompt", "config": "{}"})
    saved.write_text(own)
    install_definitions()
    assert saved.read_text() == own


def test_a_model_cache_that_is_not_writable_is_reported(tmp_path, monkeypatch):
    from workflow_blocks.running.server import ServerError, install_definitions

    (tmp_path / "file").write_text("no folder")
    monkeypatch.setattr("inference.core.env.MODEL_CACHE_DIR", str(tmp_path / "file"))

    with pytest.raises(ServerError, match=r"cannot be written.*give another --model-cache"):
        install_definitions()
