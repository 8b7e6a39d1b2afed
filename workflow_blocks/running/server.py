"""Inference's own HTTP server in this process, from a pip install."""

import json
import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from workflow_blocks.inference_host.engine import make_model_manager, quiet
from workflow_blocks.running.definitions import read_definition, workflow_names

# What Inference's Docker image has in its working directory and its wheel lacks.
LANDING_FOLDERS = ("static", "_next/static")
# Settings that say what a server does for whom; Inference has many more.
SHOWN_SETTINGS = {
    "WORKFLOWS_PLUGINS": "where blocks come from, beside Inference's own",
    "ALLOW_INFERENCE_MODELS_DIRECTLY_ACCESS_LOCAL_PACKAGES": "whether workflows may name packages on disk",
    "ALLOW_WORKFLOW_BLOCKS_ACCESSING_LOCAL_STORAGE": "whether workflows may write files",
    "WORKFLOW_BLOCKS_WRITE_DIRECTORY": "the only folder for that; without it, wherever this user may write",
    "ALLOW_LOADING_IMAGES_FROM_LOCAL_FILESYSTEM": "whether a request may name image files on this disk",
    "OFFLINE_MODE": "whether to do without usage reports, downloads and remote execution",
    "METRICS_ENABLED": "whether metrics of requests are sent to Roboflow",
    "MODEL_CACHE_DIR": "where models and saved workflows are kept",
}

# Marks the saved workflows that are this package's.
_OURS = "workflow_blocks"


class ServerError(Exception):
    """The server cannot start; the message says what to change."""


def serve(host: str, port: int) -> None:
    """Serves until it is told to stop (Ctrl-C, or a termination signal).

    Settings are those of Inference, from the environment, and must be set before.

    Args:
        host: the address to listen on.
        port: 0 takes a free one.

    Raises:
        ServerError: the address is taken or not ours, the server's packages are not installed, or the model
            cache cannot be written.
    """
    console = Console(soft_wrap=True, highlight=False)
    with _listen(host, port) as listener:
        shown_host = f"[{host}]" if ":" in host else host
        address = f"http://{shown_host}:{listener.getsockname()[1]}"
        with console.status("Starting Inference (its imports take a while)..."), quiet():
            app = make_app()
            install_definitions()
        try:
            _run(app, listener, lambda: _announce(console, address))
        except KeyboardInterrupt:
            console.print("Stopped.")


def make_app() -> Any:
    """Inference's ASGI application.

    Raises:
        ServerError: the server's packages are not installed.
    """
    try:
        from inference.core.interfaces.http.http_api import HttpInterface
    except ImportError as error:
        raise ServerError(
            f"{error.name or error} is missing: pip install 'moondream2-workflow-blocks[server]'"
        ) from error
    from inference.core.env import MAX_ACTIVE_MODELS
    from inference.core.managers.decorators.fixed_size_cache import WithFixedSizeCache

    model_manager = WithFixedSizeCache(make_model_manager(), max_size=MAX_ACTIVE_MODELS)
    model_manager.init_pingback()
    with _landing_folders():
        app = HttpInterface(model_manager).app
    _without_landing_page(app)
    return app


def install_definitions() -> None:
    """Lets clients run this package's definitions by name, as workflows of the workspace `local`.

    A workflow that somebody else has saved under such a name stays.

    Raises:
        ServerError: the folder of saved workflows cannot be written.
    """
    from inference.core.env import MODEL_CACHE_DIR

    folder = Path(MODEL_CACHE_DIR) / "workflow" / "local"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in workflow_names():
            file = folder / f"{sha256(name.encode()).hexdigest()}.json"
            if file.exists() and not _is_ours(file):
                continue
            config = json.dumps({"specification": read_definition(name)})
            file.write_text(json.dumps({"id": name, "name": name, "config": config, "from": _OURS}))
    except OSError as error:
        raise ServerError(f"{folder} cannot be written: {error}; give another --model-cache") from error


def _is_ours(file: Path) -> bool:
    try:
        return bool(json.loads(file.read_text()).get("from") == _OURS)
    except (ValueError, AttributeError):
        return False


@contextmanager
def _listen(host: str, port: int) -> Iterator[socket.socket]:
    """The address is taken before Inference's imports, so that a taken one is told at once."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except (OSError, OverflowError) as error:
            raise ServerError(
                f"cannot listen on {host}:{port}: {error}; give another --host or --port"
            ) from error
        yield listener


@contextmanager
def _landing_folders() -> Iterator[None]:
    """A working directory with the empty folders without which Inference's application is not made."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="inference-landing-") as folder:
        for name in LANDING_FOLDERS:
            (Path(folder) / "inference" / "landing" / "out" / name).mkdir(parents=True)
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)


def _without_landing_page(app: Any) -> None:
    """Unknown paths then answer 404 and `/` leads to the API's description."""
    from fastapi.responses import RedirectResponse
    from fastapi.staticfiles import StaticFiles

    app.router.routes = [
        route for route in app.router.routes if not isinstance(getattr(route, "app", None), StaticFiles)
    ]
    app.get("/", include_in_schema=False)(lambda: RedirectResponse("/docs"))


def _run(app: Any, listener: socket.socket, when_ready: Callable[[], None]) -> None:
    import uvicorn

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            when_ready()

    Server(uvicorn.Config(app, log_level="warning", access_log=True)).run(sockets=[listener])


def _announce(console: Console, address: str) -> None:
    from inference.core import env

    console.print("Settings (environment variables of Inference):")
    for name, meaning in SHOWN_SETTINGS.items():
        value = os.environ.get(name, getattr(env, name, None))
        console.print(f"  {name}={'' if value is None else escape(str(value))}  [dim]{meaning}[/dim]")
    if os.environ.get("MOONDREAM2_API_URL"):
        console.print("  MOONDREAM2_API_URL is set: another server detects for this plugin's block")
    console.print(f"Workflows that clients can run as {address}/local/workflows/<name>:")
    console.print(f"  {', '.join(workflow_names())}")
    console.print(f"[bold]Ready: {address}[/bold] (the API's description: {address}/docs). Ctrl-C stops it.")
