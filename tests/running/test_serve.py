"""The command `workflow-blocks serve`, where it does not come to serving."""

import json
import socket
from hashlib import sha256

import pytest
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
