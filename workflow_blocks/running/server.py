"""Runs Inference's own HTTP server in this process, without Docker."""

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

from workflow_blocks.datasets.atomic_files import write_atomically
from workflow_blocks.inference_host.engine import make_model_manager
from workflow_blocks.inference_host.runtime_choice import MEANINGS, chosen_runtime
from workflow_blocks.inference_host.runtime_choice import SETTING as RUNTIME_SETTING
from workflow_blocks.installation import INFERENCE_MISSING, is_inference_missing, server_requirement
from workflow_blocks.moondream2.settings import RuntimeSettings, load_settings
from workflow_blocks.running.definitions import read_definition, workflow_names
from workflow_blocks.running.playground.folder import FolderError, ReadDirectory
from workflow_blocks.running.settings import check_settings

# Folders that Inference expects in its working directory: its Docker image has them, its wheel has not.
LANDING_FOLDERS = ("static", "_next/static")
# The settings that are shown at start; Inference has many more.
SHOWN_SETTINGS = {
    "WORKFLOWS_PLUGINS": "plugins that add blocks to Inference's own",
    "ALLOW_INFERENCE_MODELS_DIRECTLY_ACCESS_LOCAL_PACKAGES": "whether workflows may use local packages",
    "ALLOW_WORKFLOW_BLOCKS_ACCESSING_LOCAL_STORAGE": "whether workflows may write files",
    "WORKFLOW_BLOCKS_WRITE_DIRECTORY": "the only folder that workflows may write to; if empty, any",
    "ALLOW_LOADING_IMAGES_FROM_LOCAL_FILESYSTEM": "whether requests may load image files from this disk",
    "OFFLINE_MODE": "whether usage reports, downloads and remote execution are off",
    "METRICS_ENABLED": "whether metrics of requests are sent to Roboflow",
    "MODEL_CACHE_DIR": "where models and saved workflows are stored",
}

# Marks the saved workflows that are this package's.
_OURS = "workflow_blocks"


class ServerError(Exception):
    """The server cannot start; the message says how to fix it."""


def serve(host: str, port: int, read_directory: Path | None = None) -> None:
    """Serves until it is stopped by Ctrl-C or a termination signal.

    Inference reads its settings from the environment when it is imported, so they must be set before.

    Args:
        host: the address to listen on.
        port: 0 takes a free one.
        read_directory: the folder whose images the playground may read.

    Raises:
        ServerError: the address is in use or is not an address of this machine, the server's packages are
            not installed, the model cache cannot be written, or the read directory cannot be read.
        SettingsError: a `MOONDREAM2_*` variable is invalid.
    """
    console = Console(soft_wrap=True, highlight=False)
    directory = _read_directory(read_directory)
    with _listen(host, port) as listener:
        shown_host = f"[{host}]" if ":" in host else host
        address = f"http://{shown_host}:{listener.getsockname()[1]}"
        with console.status("Starting Inference (its imports take a while)..."):
            check_settings()
            app, model_manager = _make_app()
            token = _add_playground(app, model_manager, listener, directory)
            install_definitions()
        try:
            _run(app, listener, lambda: _announce(console, address, token))
        except KeyboardInterrupt:
            console.print("Stopped.")


def make_app() -> Any:
    """Inference's ASGI application.

    Raises:
        ServerError: the server's packages are not installed.
    """
    return _make_app()[0]


def _make_app() -> tuple[Any, Any]:
    """The application and its model manager."""
    try:
        from inference.core.interfaces.http.http_api import HttpInterface
    except ImportError as error:
        if is_inference_missing(error):
            raise ServerError(INFERENCE_MISSING) from error
        raise ServerError(
            f"{error.name or error} is missing: pip install '{server_requirement()}'"
        ) from error
    from inference.core.env import MAX_ACTIVE_MODELS
    from inference.core.managers.decorators.fixed_size_cache import WithFixedSizeCache

    model_manager = WithFixedSizeCache(make_model_manager(), max_size=MAX_ACTIVE_MODELS)
    model_manager.init_pingback()
    with _landing_folders():
        app = HttpInterface(model_manager).app
    _without_landing_page(app)
    return app, model_manager


def _read_directory(folder: Path | None) -> ReadDirectory | None:
    try:
        return None if folder is None else ReadDirectory(folder)
    except FolderError as error:
        raise ServerError(f"{error}; give another --read-directory") from error


def _add_playground(
    app: Any, model_manager: Any, listener: socket.socket, directory: ReadDirectory | None
) -> str | None:
    """Adds the playground, and returns the token that it asks for; None on a loopback address."""
    from workflow_blocks.running.playground.access import access_for
    from workflow_blocks.running.playground.routes import add_playground

    access = access_for(listener.getsockname()[0])
    add_playground(app, model_manager, access, directory)
    return access.token


def install_definitions() -> None:
    """Saves the bundled definitions as workflows of the workspace `local`, so that clients can name them.

    A workflow that a user has saved under the same name is kept.

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
            saved = {"id": name, "name": name, "config": config, "from": _OURS}
            write_atomically(file, json.dumps(saved).encode())
    except OSError as error:
        raise ServerError(f"{folder} cannot be written: {error}; give another --model-cache") from error


def _is_ours(file: Path) -> bool:
    """Whether this plugin has written a file; it, or a server that was killed, also wrote what is no JSON."""
    try:
        return bool(json.loads(file.read_bytes()).get("from") == _OURS)
    except ValueError:
        return True
    except AttributeError:
        return False


@contextmanager
def _listen(host: str, port: int) -> Iterator[socket.socket]:
    """Binds the address before Inference is imported, so that an address in use is reported at once."""
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
    """Changes to a working directory with the empty folders that Inference's application requires."""
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
    """Lets unknown paths answer 404, and `/` redirect to the API's documentation."""
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


def _meaning_of_dtype(settings: RuntimeSettings) -> str:
    from inference_models.configuration import DEFAULT_DEVICE

    device = settings.device_or(DEFAULT_DEVICE)
    if settings.dtype != "auto":
        return f"on {device}"
    large, small = (
        str(settings.dtype_for(is_large, device)).removeprefix("torch.") for is_large in (True, False)
    )
    if large == small:
        return f"models run in {large} on {device}"
    return f"large models run in {large} on {device}, small ones in {small}"


def _announce(console: Console, address: str, token: str | None) -> None:
    from inference.core import env

    console.print("Settings (environment variables of Inference):")
    for name, meaning in SHOWN_SETTINGS.items():
        value = os.environ.get(name, getattr(env, name, None))
        console.print(f"  {name}={'' if value is None else escape(str(value))}  [dim]{meaning}[/dim]")
    choice = chosen_runtime()
    console.print("Settings of this plugin:")
    console.print(f"  {RUNTIME_SETTING}={choice}  [dim]moondream2/... ids run on {MEANINGS[choice]}[/dim]")
    settings = load_settings()
    crops = "the model's own" if settings.max_crops is None else settings.max_crops
    console.print(f"  MOONDREAM2_DTYPE={settings.dtype}  [dim]{_meaning_of_dtype(settings)}[/dim]")
    console.print(f"  MOONDREAM2_MAX_CROPS={crops}  [dim]the most crops that an image is cut into[/dim]")
    for name in sorted(settings.model_fields_set - {"dtype", "max_crops"}):
        console.print(f"  MOONDREAM2_{name.upper()}={escape(str(getattr(settings, name)))}")
    if not env.USE_INFERENCE_MODELS:
        console.print(
            f"  USE_INFERENCE_MODELS=False: {RUNTIME_SETTING} has no effect, and local packages do not load"
        )
    if os.environ.get("MOONDREAM2_API_URL"):
        console.print("  MOONDREAM2_API_URL is set: this plugin's block sends its images to another server")
    console.print(f"Workflows that clients can run as {address}/local/workflows/<name>:")
    console.print(f"  {', '.join(workflow_names())}")
    secret = "" if token is None else f"#token={token}"
    console.print(f"Playground: {address}/playground{secret}")
    console.print(f"[bold]Ready: {address}[/bold] (API documentation: {address}/docs). Press Ctrl-C to stop.")
