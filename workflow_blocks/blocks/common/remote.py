"""The other Inference server that runs a step's model: which one, and whether it has this plugin."""

import json
import logging
import math
import time
from functools import lru_cache
from typing import Any, TypeVar
from urllib.parse import urlsplit

from inference.core.env import (
    LOCAL_INFERENCE_API_URL,
    WORKFLOWS_REMOTE_API_KEY_TRANSPORT,
    WORKFLOWS_REMOTE_API_TARGET,
)
from inference.core.workflows.core_steps.common.entities import StepExecutionMode
from pydantic import AnyHttpUrl, BaseModel, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from workflow_blocks.blocks.common.client_errors import InvalidInputError, UnavailableError
from workflow_blocks.blocks.common.remote_http import RemoteRefusedError, RemoteServer
from workflow_blocks.settings_error import SettingsError

# A server is asked again after this long: the plugin may have been installed.
PLUGIN_KNOWN_FOR_S = 300.0

logger = logging.getLogger(__name__)

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

    @field_validator("key")
    @classmethod
    def _can_be_sent(cls, key: SecretStr | None) -> SecretStr | None:
        text = key.get_secret_value().strip() if key is not None else ""
        if not _can_be_in_header(text):
            raise ValueError("give printable ASCII characters")
        return SecretStr(text) if text else None


def _can_be_in_header(key: str) -> bool:
    return key.isascii() and key.isprintable()


def load_remote_settings() -> RemoteSettings:
    """Reads the environment.

    Raises:
        SettingsError: a variable has an invalid value; the message does not quote it.
    """
    try:
        return RemoteSettings()
    except ValidationError as error:
        problem = error.errors(include_input=False, include_url=False)[0]
        name = f"MOONDREAM2_API_{str(problem['loc'][0]).upper()}"
        raise SettingsError(f"{name} is invalid: {problem['msg']}") from error


def remote_server(mode: StepExecutionMode, api_key: str | None) -> RemoteServer | None:
    """The server that runs the model, or None for this server.

    Args:
        mode: the engine's step execution mode.
        api_key: the workflow's key; it is sent to the engine's own remote target only.

    Raises:
        InvalidInputError: the key has characters that cannot be sent.
        UnavailableError: a setting is invalid, or the target is Roboflow's hosted API, without Moondream2.
    """
    try:
        settings = load_remote_settings()
    except SettingsError as error:
        raise UnavailableError(f"the setting {error}", 500) from error
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
    if (address := urlsplit(LOCAL_INFERENCE_API_URL)).username or address.password:
        raise UnavailableError(
            "the setting LOCAL_INFERENCE_API_URL has a user or a password in it; remove them: the API key of "
            "the workflow is sent",
            500,
        )
    if api_key and not _can_be_in_header(api_key):
        raise InvalidInputError("`api_key` cannot be sent to another server; give printable ASCII characters")
    key = SecretStr(api_key) if api_key else None
    return _server(LOCAL_INFERENCE_API_URL, key, settings.timeout, "the server at LOCAL_INFERENCE_API_URL")


@lru_cache(maxsize=64)
def _server(url: str, key: SecretStr | None, timeout_s: float, name: str) -> RemoteServer:
    """One object for each address and key, so that connections stay open between runs."""
    return RemoteServer(url.rstrip("/"), key, WORKFLOWS_REMOTE_API_KEY_TRANSPORT, timeout_s, name)


# By address and block: when the server was asked, and whether it has the block.
_plugin_known: dict[tuple[str, str], tuple[float, bool]] = {}


def has_plugin(server: RemoteServer, definition: dict[str, Any], block_type: str, otherwise: str) -> bool:
    """Whether a server has the block of a definition. Answers are remembered for a while.

    Args:
        server: the server to ask.
        definition: a workflow with the block.
        block_type: the type of the block.
        otherwise: what happens without the block, for the log.

    Raises:
        UnavailableError: the server cannot be reached, is too slow, or does not answer the question.
    """
    asked_at, known = _plugin_known.get((server.url, block_type), (-math.inf, True))
    if time.monotonic() - asked_at <= PLUGIN_KNOWN_FOR_S:
        return known
    try:
        server.post("/workflows/validate", definition)
        answer = True
    except RemoteRefusedError as error:
        if not _is_unknown_block(error.answer, block_type):
            raise server.unavailable(
                f"does not answer whether it has this plugin (HTTP {error.status}: {error})"
            ) from error
        answer = False
    if known and not answer:
        logger.warning(
            "The Moondream2 server at %s does not have %s of this plugin: %s",
            server.url,
            block_type,
            otherwise,
        )
    _plugin_known[server.url, block_type] = (time.monotonic(), answer)
    return answer


def _is_unknown_block(answer: object, block_type: str) -> bool:
    """Whether an Inference server rejects a definition because it does not know the type of a step."""
    text = json.dumps(answer)
    return f"'{block_type}' found using 'type' does not match any of the expected tags" in text


def parsed(server: RemoteServer, model: type[_Answer], answer: Any, what: str = "a detection") -> _Answer:
    """An answer, validated by `model`.

    Raises:
        UnavailableError: the answer does not fit.
    """
    try:
        return model.model_validate(answer)
    except ValidationError as error:  # quotes the answer, which can contain the API key
        place = ".".join(map(str, error.errors()[0]["loc"]))
    raise server.unavailable(f"gave an answer that is not {what} (at {place!r})")
