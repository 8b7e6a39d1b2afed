"""Stand-ins on 127.0.0.1 for Roboflow's weights API and for the Hugging Face hub, and packages to serve."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

GOLDEN = Path(__file__).parent / "golden" / "moondream2_tiny"
# The model that was bundled before: it can only detect.
SHAPES_MODEL = Path(__file__).parent / "data" / "shapes_model"
COMMIT = "a" * 40

# Beside the weights of a published Moondream2 lies Python. Here it leaves a mark beside the model cache if it
# is run; where Inference's own class asks for a model, it gives one that finds the same box everywhere.
LEAVE_A_MARK = """
import os
with open(os.environ["MARK_FILE"], "a") as mark:
    mark.write(__file__ + "\\n")
"""
FOREIGN_MODEL = (
    LEAVE_A_MARK
    + """
from types import SimpleNamespace
import torch

class HfMoondream:
    device = "cpu"

    def __init__(self, config):
        sizes = SimpleNamespace(dim=64, n_heads=2, max_context=2048, crop_size=378, enc_patch_size=14)
        self.model = SimpleNamespace(config=SimpleNamespace(text=sizes, vision=sizes), text=SimpleNamespace())

    def post_init(self):
        pass

    @classmethod
    def from_pretrained(cls, folder, **_):
        return cls(None)

    def to(self, device):
        return self

    def encode_image(self, image):
        return image

    def detect(self, image, object, settings=None):
        return {"objects": [{"x_min": 0.25, "y_min": 0.25, "x_max": 0.75, "y_max": 0.75}]}
"""
)
FOREIGN_ROPE = LEAVE_A_MARK + "import torch\ndef precompute_freqs_cis(*_):\n    return torch.zeros(1)\n"
# As in revisions before 2025-05-31.
OLDER_CONFIG_CODE = LEAVE_A_MARK + "class TokenizerConfig:\n    bos_id: int = 50256\n"
CONFIG_CODE = LEAVE_A_MARK + "class TokenizerConfig:\n    bos_id: int = 0\n"


def published_package(folder: Path, config_code: str = CONFIG_CODE, shards: int = 0) -> Path:
    """The golden checkpoint as it would be published: with Python, and without a shard index."""
    folder.mkdir(parents=True)
    for name in ("config.json", "tokenizer.json"):
        shutil.copy(GOLDEN / name, folder / name)
    for name, code in (
        ("config.py", config_code),
        ("hf_moondream.py", FOREIGN_MODEL),
        ("rope.py", FOREIGN_ROPE),
    ):
        (folder / name).write_text(code)
    if not shards:
        shutil.copy(GOLDEN / "model.safetensors", folder / "model.safetensors")
        return folder
    from safetensors.torch import load_file, save_file

    weights = load_file(GOLDEN / "model.safetensors")
    for index in range(shards):
        names = sorted(weights)[index::shards]
        name = f"model-{index + 1:05}-of-{shards:05}.safetensors"
        save_file({tensor: weights[tensor].contiguous() for tensor in names}, folder / name)
    return folder


def checkpoint_with_text(folder: Path) -> Path:
    """The golden checkpoint with every skill: its text head writes texts that differ and end."""
    from safetensors.torch import load_file, save_file

    weights = load_file(GOLDEN / "model.safetensors") | load_file(GOLDEN / "lm_head_text.safetensors")
    save_file(weights, folder / "model.safetensors")
    shutil.copy(GOLDEN / "config_with_text.json", folder / "config.json")
    shutil.copy(GOLDEN / "tokenizer.json", folder)
    return folder


def with_older_tokenizer(folder: Path) -> Path:
    """Gives a package a tokenizer whose first tokens are ordinary text, as those of older revisions are."""
    document = json.loads((folder / "tokenizer.json").read_text())
    vocabulary, special = document["model"]["vocab"], [token["content"] for token in document["added_tokens"]]
    ordinary = sorted((name for name in vocabulary if name not in special), key=vocabulary.get)
    document["added_tokens"] = []
    document["model"]["vocab"] = {name: number for number, name in enumerate([*ordinary, *special])}
    (folder / "tokenizer.json").write_text(json.dumps(document))
    return folder


@dataclass
class Provider:
    """What the stand-ins serve and what they were asked.

    Args:
        packages: the folder of each model id, and the architecture that the API says it has.
        hub_files: the files of the hub, as "owner/name/file".
    """

    packages: dict[str, tuple[Path, str]]
    hub_files: dict[str, Path] = field(default_factory=dict)
    address: str = ""
    requests: list[str] = field(default_factory=list)
    # How many bytes of a file ("folder/name") are sent before the connection breaks, once.
    cut_once: dict[str, int] = field(default_factory=dict)

    @property
    def settings(self) -> dict[str, str]:
        """Environment variables that send Inference and the hub's library here."""
        return {
            "ROBOFLOW_API_HOST": self.address,
            "API_BASE_URL": self.address,
            "HF_ENDPOINT": self.address,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "TELEMETRY_OPT_OUT": "True",
            "OFFLINE_MODE": "False",
            "NO_PROXY": "127.0.0.1",
        }

    def metadata(self, model_id: str) -> dict[str, Any] | None:
        """What the weights API says of a model."""
        if model_id not in self.packages:
            return None
        folder, architecture = self.packages[model_id]
        files = [
            {
                "fileHandle": path.name,
                "downloadUrl": f"{self.address}/files/{model_id}/{path.name}",
                "md5Hash": hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest(),
            }
            for path in sorted(folder.iterdir())
        ]
        package = {
            "type": "external-model-package-v1",
            "packageId": hashlib.md5(model_id.encode(), usedforsecurity=False).hexdigest(),
            "trustedSource": True,
            "packageManifest": {
                "type": "hf-model-package-v1",
                "backendType": "hf",
                "quantization": "bf16",
            },
            "packageFiles": files,
        }
        return {
            "modelMetadata": {
                "type": "external-model-metadata-v1",
                "modelId": model_id,
                "modelArchitecture": architecture,
                "modelVariant": None,
                "taskType": "vlm",
                "modelPackages": [package],
                "nextPage": None,
            }
        }

    def file_at(self, path: str) -> Path | None:
        """A file of a package, or of the hub."""
        if path.startswith("/files/"):
            model_id, _, name = path.removeprefix("/files/").rpartition("/")
            return self.packages[model_id][0] / name if model_id in self.packages else None
        repository, _, rest = path.strip("/").partition("/resolve/")
        return self.hub_files.get(f"{repository}/{rest.partition('/')[2]}")


@contextmanager
def running_provider(provider: Provider) -> Iterator[Provider]:
    """Serves on a free port of 127.0.0.1."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            provider.requests.append(self.path)
            if url.path == "/models/v1/external/weights":
                answer = provider.metadata(parse_qs(url.query)["modelId"][0])
                body = json.dumps(answer or {"error": "not found"}).encode()
                self.send(200 if answer else 404, body)
            elif (file := provider.file_at(url.path)) is not None:
                self.send_file(file)
            else:
                self.send(404, b"{}", **{"X-Error-Code": "RepoNotFound"})

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send(200, b"{}")

        def send_file(self, file: Path) -> None:
            body = file.read_bytes()
            tag = {
                "ETag": f'"{hashlib.sha256(body).hexdigest()}"',
                "X-Repo-Commit": COMMIT,
                "Accept-Ranges": "bytes",
            }
            status, cut = 200, None
            if span := self.headers.get("Range"):
                first, _, last = span.removeprefix("bytes=").partition("-")
                start, end = int(first), int(last or len(body) - 1)
                tag["Content-Range"] = f"bytes {start}-{end}/{len(body)}"
                status, body = 206, body[start : end + 1]
            if self.command == "GET":
                cut = provider.cut_once.pop(f"{file.parent.name}/{file.name}", None)
            self.send(status, body, cut, **tag)

        def send(self, status: int, body: bytes, cut: int | None = None, **headers: str) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body[:cut])
            if cut is not None:
                self.close_connection = True

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    provider.address = f"http://127.0.0.1:{server.server_port}"
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield provider
    finally:
        server.shutdown()
        server.server_close()
