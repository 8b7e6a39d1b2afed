"""The other Inference server that runs a step's model: which one, and whether it has this plugin."""

import time
from functools import lru_cache
from typing import Any, TypeVar

from inference.core.env import (
    LOCAL_INFERENCE_API_URL,
    WORKFLOWS_REMOTE_API_KEY_TRANSPORT,
    WORKFLOWS_REMOTE_API_TARGET,
)
from inference.core.workflows.core_steps.common.entities import StepExecutionMode
from pydantic import AnyHttpUrl, BaseModel, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from workflow_blocks.blocks.common.client_errors import UnavailableError
from workflow_blocks.blocks.common.remote_http import RemoteRefusedError, RemoteServer

# A server is asked again after this long: the plugin may have been installed.
PLUGIN_KNOWN_FOR_S = 300.0

_Answer = TypeVar("_Answer", bound=BaseModel)


class RemoteSettings(BaseSettings):
    """Where the model runs, from environment variables. Workflows cannot choose it."""

    model_config = SettingsConfigDict(
        env_prefix="MOONDREAM2_API_",
        frozen=True,
        extra="ignore",
        env_ignore_empty=True,
        hide_input_in_errors=True,
    )

    url: AnyHttpUrl | None = None
    key: SecretStr | None = None
    timeout: float = Field(default=120.0, gt=0, le=3600)

    @field_validator("url")
    @classmethod
    def _has_no_key(cls, url: AnyHttpUrl | None) -> AnyHttpUrl | None:
        if url is not None and (url.username or url.password or url.query or url.fragment):
            raise ValueError(
                "give an address without user, password and query; set the key in MOONDREAM2_API_KEY"
            )
        return url


def remote_server(mode: StepExecutionMode, api_key: str | None) -> RemoteServer | None:
    """The server that runs the model, or None for this server.

    Args:
        mode: the engine's step execution mode.
        api_key: the workflow's key; it is sent to the engine's own remote target only.

    Raises:
        UnavailableError: a setting is invalid, or the target is Roboflow's hosted API, without Moondream2.
    """
    try:
        settings = RemoteSettings()
    except ValidationError as error:
        problem = error.errors(include_input=False, include_url=False)[0]
        name = f"MOONDREAM2_API_{str(problem['loc'][0]).upper()}"
        raise UnavailableError(f"the server's setting {name} is invalid: {problem['msg']}", 500) from error
    if settings.url is not None:
        return _server(str(settings.url), settings.key, settings.timeout, "the server at MOONDREAM2_API_URL")
    if mode is StepExecutionMode.LOCAL:
        return None
    if WORKFLOWS_REMOTE_API_TARGET == "hosted":
        raise UnavailableError(
            "Roboflow's hosted API has no Moondream2; set MOONDREAM2_API_URL to an Inference server "
            "that has it, or WORKFLOWS_REMOTE_API_TARGET=self-hosted with LOCAL_INFERENCE_API_URL, or "
            "WORKFLOWS_STEP_EXECUTION_MODE=local",
            501,
        )
    key = SecretStr(api_key) if api_key else None
    return _server(LOCAL_INFERENCE_API_URL, key, settings.timeout, "the server at LOCAL_INFERENCE_API_URL")


@lru_cache(maxsize=64)
def _server(url: str, key: SecretStr | None, timeout_s: float, name: str) -> RemoteServer:
    """One object for each address and key, so that connections stay open between runs."""
    return RemoteServer(url.rstrip("/"), key, WORKFLOWS_REMOTE_API_KEY_TRANSPORT, timeout_s, name)


# By address: when the server was asked, and whether it has the plugin.
_plugin_known: dict[str, tuple[float, bool]] = {}


def has_plugin(server: RemoteServer, definition: dict[str, Any]) -> bool:
    """Whether a server accepts a definition with this plugin's block. Answers are remembered for a while.

    Raises:
        UnavailableError: the server cannot be reached, is too slow, or gives an unusable answer.
    """
    asked_at, answer = _plugin_known.get(server.url, (-PLUGIN_KNOWN_FOR_S, False))
    if time.monotonic() - asked_at > PLUGIN_KNOWN_FOR_S:
        try:
            server.post("/workflows/validate", definition)
            answer = True
        except RemoteRefusedError:
            answer = False
        _plugin_known[server.url] = (time.monotonic(), answer)
    return answer


def parsed(server: RemoteServer, model: type[_Answer], answer: Any) -> _Answer:
    """An answer, validated by `model`.

    Raises:
        UnavailableError: the answer does not fit.
    """
    try:
        return model.model_validate(answer)
    except ValidationError as error:
        place = ".".join(map(str, error.errors()[0]["loc"]))
        raise UnavailableError(
            f"{server.name} gave an answer that is not a detection (at {place!r})", 502
        ) from error
