"""Shared fixtures: the golden checkpoint, the demo model, and Inference's engine."""

from pathlib import Path

import pytest

from benchmarks.real_server import running_server
from workflow_blocks.inference_host.engine import use_local_settings

# Before anything imports `inference`, which reads its settings then.
use_local_settings()

GOLDEN = Path(__file__).parent / "golden" / "moondream2_tiny"


@pytest.fixture(scope="session")
def golden_folder():
    return GOLDEN


@pytest.fixture(scope="session")
def golden_detector():
    from workflow_blocks.moondream2.runtime import Runtime

    return Runtime.from_folder(GOLDEN)


@pytest.fixture(scope="session")
def demo_detector():
    from workflow_blocks.bundled_model import demo_model_folder
    from workflow_blocks.moondream2.runtime import Runtime

    return Runtime.from_folder(demo_model_folder())


@pytest.fixture(scope="session")
def golden_package(tmp_path_factory):
    """The golden checkpoint as a local model package of our runtime."""
    import shutil

    from workflow_blocks.inference_host.model_package import write_package_files

    folder = tmp_path_factory.mktemp("golden_package")
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        shutil.copy(GOLDEN / name, folder / name)
    write_package_files(folder)
    return folder


@pytest.fixture(scope="session")
def model_manager():
    from workflow_blocks.inference_host.engine import make_model_manager

    return make_model_manager()


@pytest.fixture(scope="session")
def run_workflow(model_manager):
    """Compiles a definition in Inference's engine and runs it with the given inputs."""
    from workflow_blocks.inference_host.engine import make_engine

    def run(definition, serialize=False, **inputs):
        engine = make_engine(definition, model_manager)
        return engine.run(runtime_parameters=inputs, serialize_results=serialize)

    return run


@pytest.fixture
def serve_folder():
    """Serves a folder's files on loopback and gives the address."""
    import threading
    from functools import partial
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

    servers = []

    def serve(folder):
        handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """The address of a real server, and the folder in which it works."""
    folder = tmp_path_factory.mktemp("server")
    with running_server(folder) as running:
        yield running.address, folder


@pytest.fixture(scope="session")
def plain_server(tmp_path_factory):
    """The address of a real server without the plugin."""
    with running_server(tmp_path_factory.mktemp("plain_server"), WORKFLOWS_PLUGINS="") as running:
        yield running.address


@pytest.fixture(scope="session")
def front_server(tmp_path_factory, server):
    """The address of a real server whose steps `server` runs, and that takes image URLs of this machine."""
    settings = {
        "OFFLINE_MODE": "False",
        "TELEMETRY_OPT_OUT": "True",
        "WORKFLOWS_STEP_EXECUTION_MODE": "remote",
        "WORKFLOWS_REMOTE_API_TARGET": "self-hosted",
        "LOCAL_INFERENCE_API_URL": server[0],
        "ALLOW_NON_HTTPS_URL_INPUT": "True",
        "ALLOW_URL_INPUT_WITHOUT_FQDN": "True",
    }
    with running_server(tmp_path_factory.mktemp("front_server"), **settings) as running:
        yield running.address
