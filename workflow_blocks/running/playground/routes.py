"""The playground's routes: its page, sample images, the images of a folder, and datasets.

Detection and answers are not among them: the page asks the server's own route, `/workflows/run`.
"""

import base64
import binascii
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import cv2
from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, JSONResponse
from filelock import Timeout
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from workflow_blocks.blocks.common.client_errors import InvalidInputError
from workflow_blocks.blocks.common.model_version import (
    RELEASED_MODEL,
    check_model_version,
    is_local,
    resolve_model_version,
)
from workflow_blocks.blocks.common.prompts import MAX_PROMPTS
from workflow_blocks.blocks.common.remote import load_remote_settings
from workflow_blocks.blocks.detections_dataset_export.settings import ClassName, ClassNames, Shares
from workflow_blocks.bundled_model import DEMO_MODEL
from workflow_blocks.datasets.details import Detail
from workflow_blocks.datasets.errors import DatasetError
from workflow_blocks.datasets.formats import DatasetFormatName
from workflow_blocks.image_files import ImageFileError, decode_image
from workflow_blocks.moondream2.config import ConfigError, Moondream2Config
from workflow_blocks.package_ids import folder_of
from workflow_blocks.prompt_text import MAX_PROMPT_LENGTH
from workflow_blocks.running.files import SAMPLE_IMAGES
from workflow_blocks.running.playground.access import Access, RefusedError, cookie_name
from workflow_blocks.running.playground.datasets import (
    DatasetsOfPage,
    NoRoomError,
    TooManyDatasetsError,
    UnknownDatasetError,
)
from workflow_blocks.running.playground.folder import FolderError, ReadDirectory

PAGE = Path(__file__).parent / "page"
MAX_IMAGE_BYTES = 32 * 1024**2
# An image in base64, and its labels.
MAX_BODY_BYTES = MAX_IMAGE_BYTES * 4 // 3 + 2 * 1024**2
MAX_PREVIEW_SIDE = 2048
THUMBNAIL_SIDE = 120
_MEDIA_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob:; connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_HEADERS = {
    "Cache-Control": "no-cache",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_STATUS_OF_ERRORS: dict[type[Exception], int] = {
    InvalidInputError: 400,
    FolderError: 404,
    UnknownDatasetError: 404,
    ImageFileError: 422,
    DatasetError: 422,
    TooManyDatasetsError: 429,
    NoRoomError: 507,
    Timeout: 503,
    OSError: 507,
}

_Body = TypeVar("_Body", bound=BaseModel)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Token(_Strict):
    token: Annotated[str, Field(max_length=256)]


class NewDataset(_Strict):
    format: DatasetFormatName
    class_names: ClassNames


_Pixel = Annotated[float, Field(strict=True, allow_inf_nan=False)]


class Label(_Strict):
    """A box: its class, its corners in pixels (x_min, y_min, x_max, y_max), and how it was found."""

    class_name: ClassName
    box: tuple[_Pixel, _Pixel, _Pixel, _Pixel]
    score: Annotated[float, Field(ge=0, le=1)] | None = None
    prompt: Annotated[str, Field(max_length=MAX_PROMPT_LENGTH)] = ""


class NewImage(_Strict):
    """An image with its labels: `content` in base64, or the `path` of one in the read directory."""

    name: Annotated[str, Field(max_length=1024)]
    content: str | None = None
    path: str | None = None
    labels: Annotated[list[Label], Field(max_length=100_000)]
    split: Shares


def add_playground(
    app: FastAPI, model_manager: Any, access: Access, read_directory: ReadDirectory | None
) -> None:
    """Adds `/playground` to Inference's application."""
    routes = _Routes(model_manager, access, read_directory)
    routes.add_to(app)
    app.router.add_event_handler("shutdown", routes.datasets.close)


class _Routes:
    """What the page asks for. Every answer that is an error is `{"message": ...}`, as Inference's are."""

    def __init__(self, model_manager: Any, access: Access, read_directory: ReadDirectory | None) -> None:
        self._model_manager = model_manager
        self._access = access
        self._read_directory = read_directory
        self._files = {path.name: path for path in PAGE.iterdir() if path.suffix in _MEDIA_TYPES}
        self._samples = {path.name: path for path in sorted(SAMPLE_IMAGES.glob("*.jpg"))}
        self.datasets = DatasetsOfPage()

    def add_to(self, app: FastAPI) -> None:
        """Adds every route, one by one: Inference's metrics do not know routers inside of an application."""
        for method, path, answer in (
            ("GET", "/info", self._info),
            ("GET", "/model", self._model),
            ("GET", "/samples/{name}", self._sample),
            ("GET", "/thumbnails/{name}", self._thumbnail),
            ("GET", "/folder", self._folder),
            ("GET", "/folder/image", self._folder_image),
            ("GET", "/folder/preview", self._folder_preview),
            ("POST", "/datasets", self._new_dataset),
            ("POST", "/datasets/{dataset}/images", self._new_image),
            ("GET", "/datasets/{dataset}", self._archive),
            ("DELETE", "/datasets/{dataset}", self._remove_dataset),
        ):
            self._add(app, method, f"/playground/api{path}", answer, self._access.check)
        for method, path, answer, check in (
            ("GET", "", self._page, self._access.check_host),
            ("GET", "/page/{name}", self._page_file, self._access.check_host),
            ("POST", "/api/session", self._session, self._access.check_origin),
        ):
            self._add(app, method, f"/playground{path}", answer, check)

    def _add(
        self,
        app: FastAPI,
        method: str,
        path: str,
        answer: Callable[..., Any],
        check: Callable[[Request], None],
    ) -> None:
        app.add_api_route(path, self._guarded(answer, check), methods=[method], include_in_schema=False)

    def _guarded(self, answer: Callable[..., Any], check: Callable[[Request], None]) -> Callable[..., Any]:
        async def route(request: Request) -> Response:
            try:
                check(request)
                response: Response = await answer(request)
            except RefusedError as error:
                response = JSONResponse({"message": str(error)}, error.status)
            except tuple(_STATUS_OF_ERRORS) as error:
                status = next(code for kind, code in _STATUS_OF_ERRORS.items() if isinstance(error, kind))
                response = JSONResponse({"message": _printable(error)}, status)
            for name, value in _HEADERS.items():
                response.headers.setdefault(name, value)
            return response

        return route

    async def _page(self, request: Request) -> Response:
        """The page, or where a token is needed and missing, the page that takes it."""
        try:
            self._access.check_page(request)
        except RefusedError as error:
            return FileResponse(PAGE / "login.html", error.status, headers=_PAGE_HEADERS)
        return FileResponse(PAGE / "index.html", headers=_PAGE_HEADERS)

    async def _page_file(self, request: Request) -> Response:
        path = self._files.get(request.path_params["name"])
        if path is None:
            raise RefusedError(404, "no such file")
        return FileResponse(path, media_type=_MEDIA_TYPES[path.suffix])

    async def _session(self, request: Request) -> Response:
        """Takes the token and keeps it in a cookie, so that it is in no address that a log may have."""
        given = await _body(request, Token)
        if not self._access.is_token(given.token):
            raise RefusedError(401, "this is not the token that `workflow-blocks serve` printed")
        response = Response(status_code=204)
        is_encrypted = request.url.scheme == "https"
        response.set_cookie(
            cookie_name(request),
            given.token,
            httponly=True,
            samesite="strict",
            path="/playground",
            secure=is_encrypted,
        )
        return response

    async def _info(self, request: Request) -> Response:
        return JSONResponse(
            {
                "models": [DEMO_MODEL, RELEASED_MODEL],
                "samples": list(self._samples),
                "folder": self._read_directory.name if self._read_directory else None,
                "max_image_bytes": MAX_IMAGE_BYTES,
                "max_prompts": MAX_PROMPTS,
                "max_prompt_length": MAX_PROMPT_LENGTH,
            }
        )

    async def _model(self, request: Request) -> Response:
        """The skills of a model, where known; once it has answered, its runtime, device and dtype."""
        if (server := load_remote_settings().url) is not None:
            return JSONResponse({"runtime": "remote", "server": str(server)})
        version = request.query_params.get("version", "")
        model = resolve_model_version(version)
        about: dict[str, Any] = {"skills": await run_in_threadpool(_skills, version, model)}
        if model in self._model_manager:
            about |= self._model_manager.run_tensor_native_inference(model, images=None, task="about")
        return JSONResponse(about)

    async def _sample(self, request: Request) -> Response:
        return FileResponse(self._sample_path(request), media_type="image/jpeg")

    async def _thumbnail(self, request: Request) -> Response:
        content = self._sample_path(request).read_bytes()
        return Response(_preview(content, THUMBNAIL_SIDE), media_type="image/jpeg")

    def _sample_path(self, request: Request) -> Path:
        path = self._samples.get(request.path_params["name"])
        if path is None:
            raise RefusedError(404, "no such sample image")
        return path

    async def _folder(self, request: Request) -> Response:
        listing = await run_in_threadpool(self._directory.list, request.query_params.get("path", ""))
        return JSONResponse(
            {
                "folders": listing.folders,
                "images": listing.images,
                "skipped": listing.skipped,
                "is_cut": listing.is_cut,
            }
        )

    async def _folder_image(self, request: Request) -> Response:
        """An image's file. It is never shown by a browser: its bytes go to `/workflows/run`."""
        content = await run_in_threadpool(self._read_from_folder, request.query_params.get("path", ""))
        return Response(content, media_type="application/octet-stream")

    async def _folder_preview(self, request: Request) -> Response:
        path = request.query_params.get("path", "")
        content = await run_in_threadpool(lambda: _preview(self._read_from_folder(path)))
        return Response(content, media_type="image/jpeg")

    async def _new_dataset(self, request: Request) -> Response:
        new = await _body(request, NewDataset)
        name = await run_in_threadpool(self.datasets.start, new.format, new.class_names)
        return JSONResponse({"dataset": name}, 201)

    async def _new_image(self, request: Request) -> Response:
        new = await _body(request, NewImage)
        split = await run_in_threadpool(self._add_image, request.path_params["dataset"], new)
        return JSONResponse({"split": split})

    async def _archive(self, request: Request) -> Response:
        path, format_name = await run_in_threadpool(self.datasets.archive, request.path_params["dataset"])
        return FileResponse(path, media_type="application/zip", filename=f"dataset-{format_name}.zip")

    async def _remove_dataset(self, request: Request) -> Response:
        await run_in_threadpool(self.datasets.remove, request.path_params["dataset"])
        return Response(status_code=204)

    @property
    def _directory(self) -> ReadDirectory:
        if self._read_directory is None:
            raise FolderError("this server reads no folder; start it with `serve --read-directory FOLDER`")
        return self._read_directory

    def _read_from_folder(self, path: str) -> bytes:
        return self._directory.read(path, MAX_IMAGE_BYTES)

    def _add_image(self, dataset: str, new: NewImage) -> str:
        """Returns the image's split."""
        if (new.content is None) == (new.path is None):
            raise InvalidInputError("give `content` or `path`")
        content = self._read_from_folder(new.path) if new.path is not None else _decoded(new.content or "")
        return self.datasets.add(
            dataset,
            content,
            new.name,
            [label.box for label in new.labels],
            [label.class_name for label in new.labels],
            [Detail(label.score, label.prompt) for label in new.labels],
            new.split,
        )


async def _body(request: Request, model: type[_Body]) -> _Body:
    """The JSON that was sent.

    Raises:
        RefusedError: it is larger than any image may be.
        InvalidInputError: it is not what is expected.
    """
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > MAX_BODY_BYTES:
            raise RefusedError(413, f"the request is larger than {MAX_BODY_BYTES:,} bytes")
    try:
        return model.model_validate_json(bytes(content))
    except ValidationError as error:
        problem = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(map(str, problem["loc"]))
        raise InvalidInputError(f"`{place}`: {problem['msg']}" if place else problem["msg"]) from error


def _skills(version: str, model: str) -> list[str] | None:
    """What the package of a `model_version` was made for; None if it is not on this server or damaged."""
    if not is_local(check_model_version(version)):
        return None
    try:
        return Moondream2Config.from_file(Path(folder_of(model) or model) / "config.json").skills
    except ConfigError:
        return None


def _decoded(content: str) -> bytes:
    try:
        return base64.b64decode(content, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidInputError("`content` is not base64") from error


def _preview(content: bytes, max_side: int = MAX_PREVIEW_SIDE) -> bytes:
    """A JPEG of an image, small enough for a page."""
    image = decode_image(content)
    height, width = image.shape[:2]
    scale = min(1.0, max_side / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA) if scale < 1 else image
    return cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()


def _printable(error: Exception) -> str:
    return str(error).encode("utf-8", "backslashreplace").decode()
