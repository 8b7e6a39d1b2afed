"""Shared fixtures: the golden checkpoint, the demo model, Inference's engine, and processes beside this one.

The tests may run in several processes (`make test` takes two). Tests of one file run in the same process, and
so do all tests that need a server, because a server takes half a minute to start.
"""

import os
import socket
from contextlib import ExitStack
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.loopback import serving
from tests.real_server import RealServer
from tests.tensor_native_run import TensorNativeRun
from workflow_blocks.inference_host.engine import use_local_settings

# Model families that no test uses. Without them, Inference imports about five seconds faster in each process.
UNUSED_MODELS = [
    *("CORE_MODEL_SAM", "CORE_MODEL_SAM3", "CORE_MODEL_GAZE", "CORE_MODEL_PE", "CORE_MODEL_GROUNDINGDINO"),
    *("CORE_MODEL_DOCTR", "CORE_MODEL_EASYOCR", "CORE_MODEL_TROCR", "CORE_MODEL_YOLO_WORLD"),
    *("QWEN_2_5", "QWEN_3", "QWEN_3_5", "SMOLVLM2", "PALIGEMMA", "FLORENCE2", "DEPTH_ESTIMATION"),
]

# Before anything imports `inference`, which reads its settings then.
use_local_settings()
for name in UNUSED_MODELS:
    os.environ.setdefault(f"{name}_ENABLED", "False")
if "PYTEST_XDIST_WORKER" in os.environ:
    # Before anything imports `torch`: each worker process has one core.
    os.environ["OMP_NUM_THREADS"] = "1"

GOLDEN = Path(__file__).parent / "golden" / "moondream2_tiny"
# Fixtures that are processes of their own, or listen on a fixed port, and the files whose tests use them.
PROCESSES = {"server", "plain_server", "front_server", "tensor_native_run", "alerts"}
FILES_WITH_PROCESSES = {
    "tests/benchmarks/test_soak.py",
    "tests/running/test_playground.py",
    "tests/running/test_playground_asking.py",
    "tests/running/test_playground_page.py",
    "tests/running/test_remote_servers.py",
    "tests/running/test_server.py",
    "tests/workflows/test_from_words_to_a_model.py",
    "tests/workflows/test_readme_commands.py",
    "tests/workflows/test_tensor_native.py",
}


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Runs tests of one file in the same process, and those of all files with processes too."""
    from xdist.scheduler import LoadFileScheduling

    class OneProcessForEachFile(LoadFileScheduling):
        def _split_scope(self, nodeid):
            file = super()._split_scope(nodeid)
            return "processes" if file in FILES_WITH_PROCESSES else file

    return OneProcessForEachFile(config, log)


def pytest_collection_modifyitems(items):
    for item in items:
        file = item.nodeid.partition("::")[0]
        if not PROCESSES.isdisjoint(item.fixturenames) and file not in FILES_WITH_PROCESSES:
            raise pytest.UsageError(f"{item.nodeid} needs a process: add its file to FILES_WITH_PROCESSES")


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
def text_package(tmp_path_factory):
    """The path of a local model package of a tiny model that has every skill."""
    from tests.stand_ins import checkpoint_with_text
    from workflow_blocks.inference_host.model_package import write_package_files

    folder = checkpoint_with_text(tmp_path_factory.mktemp("text_package"))
    write_package_files(folder)
    return str(folder)


@pytest.fixture(scope="session")
def text_model(text_package):
    """The model in it, for comparison."""
    from workflow_blocks.inference_host.model import Moondream2Model

    return Moondream2Model.from_pretrained(text_package)


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
    with ExitStack() as servers:

        def serve(folder):
            handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
            return servers.enter_context(serving(ThreadingHTTPServer(("127.0.0.1", 0), handler)))

        yield serve


@pytest.fixture(scope="session")
def processes(request, tmp_path_factory):
    """The processes that the tests of this session need. They start side by side, and stop at the end."""
    needed = {name for item in request.session.items for name in item.fixturenames}
    # A server that is told of another one must know its address before either listens.
    port = free_port()
    settings_of_front_server = {
        "OFFLINE_MODE": "False",
        "TELEMETRY_OPT_OUT": "True",
        "WORKFLOWS_STEP_EXECUTION_MODE": "remote",
        "WORKFLOWS_REMOTE_API_TARGET": "self-hosted",
        "LOCAL_INFERENCE_API_URL": f"http://127.0.0.1:{port}",
        "ALLOW_NON_HTTPS_URL_INPUT": "True",
        "ALLOW_URL_INPUT_WITHOUT_FQDN": "True",
    }
    starts = {
        "server": lambda folder: RealServer(
            folder, "--port", str(port), "--read-directory", str(make_pictures(folder / "pictures"))
        ),
        "front_server": lambda folder: RealServer(folder, "--port", "0", **settings_of_front_server),
        "plain_server": lambda folder: RealServer(folder, "--port", "0", WORKFLOWS_PLUGINS=""),
        "tensor_native_run": TensorNativeRun,
    }
    with ExitStack() as waits, ExitStack() as interrupts:
        started = {}
        for name, start in starts.items():
            if name in needed:
                started[name] = start(tmp_path_factory.mktemp(name))
                waits.callback(started[name].wait)
                interrupts.callback(started[name].interrupt)
        yield started


def make_pictures(folder):
    """A folder that the playground may read: images, a folder in it, and what is not to be read."""
    from tests.scenes import image_png

    inner = folder / "inner"
    inner.mkdir(parents=True)
    for number, path in enumerate([folder / "0.png", folder / "1.png", inner / "2.png"]):
        path.write_bytes(image_png(number))
    (folder / "notes.txt").write_text("no image")
    outside = folder.parent / "outside"
    outside.mkdir()
    (outside / "secret.png").write_bytes((folder / "0.png").read_bytes())
    (folder / "link.png").symlink_to(outside / "secret.png")
    (folder / "link").symlink_to(outside)
    (folder / "to_inner").symlink_to(inner)
    return folder


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.fixture(scope="session")
def server(processes):
    """The address of a real server."""
    return processes["server"].address


@pytest.fixture(scope="session")
def plain_server(processes):
    """The address of a real server without the plugin."""
    return processes["plain_server"].address


@pytest.fixture(scope="session")
def front_server(processes, server):
    """The address of a real server whose steps `server` runs, and that takes image URLs of this machine."""
    return processes["front_server"].address


@pytest.fixture(scope="session")
def tensor_native_run(processes):
    """Tests in the engine's tensor-native mode, in a process of their own."""
    return processes["tensor_native_run"]
