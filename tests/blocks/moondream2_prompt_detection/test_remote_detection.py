"""Detection on another server, against servers that do all that servers do."""

import html
import json
import logging
import socket
import threading
import time
import traceback
from base64 import b64encode
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from urllib.parse import quote

import numpy as np
import pytest
from inference.core.workflows.core_steps.common.entities import StepExecutionMode
from inference.core.workflows.errors import ClientCausedStepExecutionError
from inference.core.workflows.execution_engine.entities.base import (
    Batch,
    ImageParentMetadata,
    WorkflowImageData,
)

from tests.loopback import serving
from workflow_blocks.blocks.common import remote as remote_module
from workflow_blocks.blocks.common import remote_detection, remote_http
from workflow_blocks.blocks.moondream2_prompt_detection.v1 import Moondream2PromptDetectionBlockV1
from workflow_blocks.inference_host.engine import make_engine

KEY = "secret-key-of-a-test"
BOX = {"x": 20.0, "y": 30.0, "width": 10.0, "height": 20.0, "confidence": 0.75, "class_id": 1}


# As Inference answers for a step whose type it does not know.
UNKNOWN_BLOCK = (
    400,
    {
        "message": "Could not parse workflow definition. Details provided in inner error.",
        "error_type": "WorkflowSyntaxError",
        "blocks_errors": [
            {
                "block_id": remote_detection.FORWARDED_STEP,
                "property_details": f"Input tag '{remote_detection.BLOCK_TYPE}' found using 'type' does not "
                "match any of the expected tags: 'roboflow_core/absolute_static_crop@v1', 'Crop'",
            }
        ],
    },
)


def found(*boxes):
    return 200, {"outputs": [{"predictions": {"predictions": list(boxes)}}]}


class FaultyServer(ThreadingHTTPServer):
    """Answers what `answers` gives for a path and a decoded body: (status, document or bytes[, headers])."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, answers, port=0):
        self.answers = answers
        self.requests = []
        self.connections = set()
        self.in_flight = self.most_in_flight = 0
        self.lock = threading.Lock()
        super().__init__(("127.0.0.1", port), Handler)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    def posts(self, path):
        return [request for request in self.requests if request[0] == path]

    def handle_error(self, *_):
        """Clients hang up here."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server = self.server
        with server.lock:
            server.requests.append((self.path, body, dict(self.headers)))
            server.connections.add(self.client_address)
            server.in_flight += 1
            server.most_in_flight = max(server.most_in_flight, server.in_flight)
        answer = server.answers(self.path, body)
        with server.lock:
            server.in_flight -= 1
        if callable(answer):
            answer(self)
            self.close_connection = True
            return
        status, document, headers = (*answer, {})[:3]
        content = document if isinstance(document, bytes) else json.dumps(document).encode()
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def waits(monkeypatch):
    """The seconds that retries waited; here they do not take any time."""
    waited = []
    clock = SimpleNamespace(sleep=waited.append, time=time.time)
    monkeypatch.setattr("urllib3.util.retry.time", clock)
    return waited


@pytest.fixture
def hang():
    """Waits until the test is over."""
    is_over = threading.Event()
    yield is_over.wait
    is_over.set()


@pytest.fixture
def start():
    """Starts a `FaultyServer`."""
    with ExitStack() as servers:

        def start(answers, port=0):
            server = FaultyServer(answers, port)
            servers.enter_context(serving(server))
            return server

        yield start


@pytest.fixture
def serve(monkeypatch, start, waits):
    """Starts a server that has the plugin and runs workflows as told, and sends detection to it."""
    # A server of an earlier test may have had the same port.
    monkeypatch.setattr(remote_module, "_plugin_known", {})

    def serve(run, validate=(200, {"status": "ok"}), port=0):
        def answers(path, body):
            given = validate if path == "/workflows/validate" else run
            return given(path, body) if callable(given) and not isinstance(given, Raw) else given

        server = start(answers, port)
        monkeypatch.setenv("MOONDREAM2_API_URL", server.url)
        return server

    return serve


class Raw:
    """An answer written straight to the connection."""

    def __init__(self, write):
        self.write = write

    def __call__(self, handler):
        self.write(handler)


def begin_answer(handler):
    """The head of an answer whose body never comes whole."""
    handler.send_response(200)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()


def in_turn(*answers):
    """Gives one answer after the other, and the last one from then on."""
    left = list(answers)
    return lambda *_: left.pop(0) if len(left) > 1 else left[0]


def detect(
    n_images=1,
    prompts=("dog", "cat"),
    mode=StepExecutionMode.LOCAL,
    api_key=None,
    model="some/model",
    model_manager=None,
    **fields,
):
    block = Moondream2PromptDetectionBlockV1(
        model_manager=model_manager, api_key=api_key, step_execution_mode=mode
    )
    images = [
        WorkflowImageData(
            parent_metadata=ImageParentMetadata(parent_id=f"image_{index}"),
            numpy_image=np.full((64, 96, 3), index, np.uint8),
        )
        for index in range(n_images)
    ]
    indices = [(index,) for index in range(n_images)]
    limits = {"confidence": 0.0, "max_detections": 50, "iou_threshold": 0.5, "class_agnostic_nms": False}
    return block.run(
        images=Batch.init(content=images, indices=indices),
        prompts=Batch.init(content=[list(prompts)] * n_images, indices=indices),
        model_version=model,
        **(limits | fields),
    )


def chain_of(error):
    """An error with all that led to it, as a log shows them."""
    return "".join(traceback.format_exception(error))


def failure(**arguments):
    with pytest.raises(ClientCausedStepExecutionError) as error:
        detect(**arguments)
    return error.value.status_code, str(error.value)


def test_one_request_an_image_with_all_prompts_and_scores_come_back(serve):
    server = serve(found(BOX, BOX | {"x": 70.0, "class_id": 0, "confidence": 0.5}))

    results = detect(n_images=3)

    requests = server.posts("/workflows/run")
    assert len(requests) == 3
    assert [body["inputs"]["prompts"] for _, body, _ in requests] == [["dog", "cat"]] * 3
    assert {body["inputs"]["model_version"] for _, body, _ in requests} == {"some/model"}
    for result in results:
        assert result["counts"] == {"dog": 1, "cat": 1}
        np.testing.assert_allclose(result["predictions"].xyxy, [[15, 20, 25, 40], [65, 20, 75, 40]])
        np.testing.assert_allclose(result["predictions"].confidence, [0.75, 0.5])


def test_without_the_plugin_one_request_an_image_and_prompt(serve):
    server = serve((200, {"predictions": [BOX]}), validate=UNKNOWN_BLOCK)

    (first, second) = detect(n_images=2)

    requests = server.posts("/infer/lmm")
    assert sorted(body["prompt"] for _, body, _ in requests) == ["cat", "cat", "dog", "dog"]
    assert first["counts"] == second["counts"] == {"dog": 1, "cat": 1}
    np.testing.assert_array_equal(first["predictions"].class_id, [0, 1])


def test_limits_apply_to_remote_detections(serve):
    boxes = [BOX | {"x": 10.0 + 12 * index, "confidence": index / 10} for index in range(8)]
    server = serve(found(*boxes))

    (result,) = detect(confidence=0.3, max_detections=2)

    np.testing.assert_allclose(sorted(result["predictions"].confidence), [0.6, 0.7])
    ((_, body, _),) = server.posts("/workflows/run")
    (step,) = body["specification"]["steps"]
    # The other server gives all that it finds: what to drop is decided here, once.
    assert (step["confidence"], step["iou_threshold"], step["max_detections"]) == (0.0, 1.0, 50)


def test_requests_run_together_within_the_engine_s_limit(serve):
    together = threading.Barrier(remote_detection.MAX_REQUESTS_AT_ONCE)

    def answer_when_as_many_are_there(*_):
        together.wait(timeout=60)
        return found(BOX)

    server = serve(answer_when_as_many_are_there)

    detect(n_images=3 * remote_detection.MAX_REQUESTS_AT_ONCE)

    assert server.most_in_flight == remote_detection.MAX_REQUESTS_AT_ONCE > 1


def test_too_many_boxes_of_a_server_without_the_plugin(serve):
    serve((200, {"predictions": [BOX] * 51}), validate=UNKNOWN_BLOCK)

    status, message = failure()

    assert status == 502
    assert "gave 51 boxes; a prompt has at most 50, and 1 were sent" in message


def test_boxes_as_large_as_numbers_can_be_stay_in_the_image(serve):
    serve(found(BOX | {"x": 1e308, "width": 1.7e308}, BOX | {"x": -1e308, "width": 1.7e308, "y": 1e-320}))

    (result,) = detect()

    assert np.isfinite(result["predictions"].xyxy).all()


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_transient_errors_are_retried(serve, waits, status):
    server = serve(in_turn((status, b"busy"), (status, b""), found(BOX)))

    assert detect()[0]["counts"] == {"dog": 0, "cat": 1}
    assert len(server.posts("/workflows/run")) == 3
    assert waits == [1]


def test_a_server_that_stays_busy_is_asked_seven_times(serve, waits):
    server = serve((503, b"busy"))

    status, message = failure()

    assert status == 503
    assert "HTTP 503, 7 times" in message
    assert len(server.posts("/workflows/run")) == 7
    assert waits == [1, 2, 4, 8, 16]


def test_a_reset_connection_is_retried(serve):
    server = serve(in_turn(Raw(lambda handler: None), found(BOX)))

    assert detect()[0]["counts"] == {"dog": 0, "cat": 1}
    assert len(server.posts("/workflows/run")) == 2


def test_a_server_that_is_starting_is_retried(serve, waits, monkeypatch):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    monkeypatch.setenv("MOONDREAM2_API_URL", f"http://127.0.0.1:{port}")

    def wait(seconds):
        waits.append(seconds)
        if len(waits) == 2:
            serve(found(BOX), port=port)

    monkeypatch.setattr("urllib3.util.retry.time", SimpleNamespace(sleep=wait, time=time.time))

    assert detect()[0]["counts"] == {"dog": 0, "cat": 1}
    assert waits == [1, 2]


@pytest.mark.parametrize(("asked", "waited"), [("3", 3), ("86400", 16)])
def test_retry_after_is_respected_up_to_a_limit(serve, waits, asked, waited):
    serve(in_turn((429, b"", {"Retry-After": asked}), found(BOX)))

    detect()

    assert waits == [waited]


@pytest.mark.parametrize(
    ("answer", "status", "problem"),
    [
        ((500, {"message": "no GPU"}), 502, "failed (HTTP 500)"),
        ((400, {"message": "no such model"}), 400, "rejects the request: no such model"),
        ((404, {"detail": "Not Found"}), 400, "rejects the request: Not Found"),
        ((401, {"message": "no"}), 502, "refuses the API key"),
        ((403, b"forbidden"), 502, "refuses the API key"),
        ((200, b"hello"), 502, "not JSON"),
        ((200, []), 502, "not a detection"),
        ((200, {"outputs": []}), 502, "not a detection (at 'outputs')"),
        ((200, b'{"outputs": [{"predictions": {"predictions": [{"x": NaN}]}}]}'), 502, "not a detection"),
        (found(BOX | {"class_id": 7}), 502, "classes that were not requested"),
        (found(BOX | {"width": -1}), 502, "not a detection"),
        ((200, b"[" * 10**6), 502, "not JSON"),
        ((200, b'{"outputs":' * 10**5), 502, "not JSON"),
        ((400, b'{"message":' + b"[" * 10**5 + b"]" * 10**5 + b"}"), 502, "not JSON"),
        ((200, b'{"outputs": ' + b"9" * 10**6 + b"}"), 502, "not"),
        (found(*[BOX] * 101), 502, "gave 101 boxes; a prompt has at most 50, and 2 were sent"),
        (found(*[{"x": 1, "y": 1, "width": 1, "height": 1}] * 300_000), 502, "gave 300000 boxes"),
        ((508, {"message": "a loop"}), 502, "sends its images to another server, too"),
        ((200, b"{", {"Content-Length": "500", "Connection": "close"}), 502, "closed the connection"),
        ((307, b"", {"Location": "http://127.0.0.1:9/"}), 502, "redirects to another address"),
    ],
)
def test_other_errors_fail_immediately(serve, answer, status, problem):
    server = serve(answer)

    told_status, message = failure()

    assert told_status == status
    assert problem in message
    assert "MOONDREAM2_API_URL" in message
    assert server.url not in message
    assert len(server.posts("/workflows/run")) == 1


def test_a_server_that_hangs_times_out(serve, hang, monkeypatch):
    monkeypatch.setenv("MOONDREAM2_API_TIMEOUT", "1")
    server = serve(Raw(lambda handler: hang()))

    assert failure() == (504, "Step '': the server at MOONDREAM2_API_URL did not answer within 1 s")
    assert len(server.posts("/workflows/run")) == 1


def test_a_server_that_hangs_while_answering_times_out(serve, hang, monkeypatch):
    def begin_and_hang(handler):
        begin_answer(handler)
        handler.wfile.write(b"{")
        hang()

    monkeypatch.setenv("MOONDREAM2_API_TIMEOUT", "1")
    server = serve(Raw(begin_and_hang))

    assert failure()[0] == 504
    assert len(server.posts("/workflows/run")) == 1


def test_a_server_that_trickles_times_out(serve, hang, monkeypatch):
    def trickle(handler):
        begin_answer(handler)
        while not hang(timeout=0.05):
            handler.wfile.write(b" ")

    monkeypatch.setenv("MOONDREAM2_API_TIMEOUT", "1")
    serve(Raw(trickle))

    status, message = failure()

    assert status == 504
    assert "did not finish its answer within 1 s" in message


def test_an_endless_answer_is_cut_off(serve, monkeypatch):
    monkeypatch.setattr(remote_http, "MAX_ANSWER_BYTES", 2**20)
    serve((200, b" " * 2**21))

    assert "sent more than 1 MiB" in failure()[1]


def test_an_unreachable_server_is_reported(monkeypatch, waits):
    monkeypatch.setenv("MOONDREAM2_API_URL", "http://127.0.0.1:9")

    status, message = failure()

    assert status == 502
    assert "cannot be reached" in message
    assert waits == [1, 2, 4, 8, 16]


@pytest.mark.parametrize(
    ("transport", "in_body", "in_header"), [("legacy", 1, 0), ("both", 1, 1), ("header", 0, 1)]
)
def test_the_key_goes_where_the_engine_s_setting_says(serve, monkeypatch, transport, in_body, in_header):
    monkeypatch.setenv("MOONDREAM2_API_KEY", KEY)
    monkeypatch.setattr(remote_module, "WORKFLOWS_REMOTE_API_KEY_TRANSPORT", transport)
    server = serve(found(BOX))

    detect(api_key="key of the workflow's caller")

    assert len(server.requests) == 2
    for path, body, headers in server.requests:
        assert (body.get("api_key") == KEY) == bool(in_body)
        assert (headers.get("Authorization") == f"Bearer {KEY}") == bool(in_header)
        assert "key of the workflow's caller" not in path + json.dumps(body) + json.dumps(headers)


def test_the_key_of_a_workflow_does_not_go_to_the_address_of_the_setting(serve):
    server = serve(found(BOX))

    detect(api_key=KEY)

    assert len(server.requests) == 2
    assert KEY not in str(server.requests)


def test_connections_stay_open_between_runs(serve):
    server = serve(found(BOX))

    for _ in range(3):
        detect()

    assert len(server.requests) == 4
    assert len(server.connections) == 1


def test_each_key_is_sent_alone(serve, monkeypatch):
    """Requests with two keys to one address do not share them."""
    server = serve(found(BOX))
    for key in ("first", "second", "first"):
        monkeypatch.setenv("MOONDREAM2_API_KEY", key)
        detect()

    sent = [body["api_key"] for _, body, _ in server.posts("/workflows/run")]
    assert sent == ["first", "second", "first"]


def test_a_server_is_asked_for_the_plugin_once_in_a_while(serve, monkeypatch):
    server = serve(found(BOX))
    now = [1000.0]
    monkeypatch.setattr(remote_module, "time", SimpleNamespace(monotonic=lambda: now[0]))

    asked = []
    for seconds in (0, 200, 99, 2, 299):
        now[0] += seconds
        detect()
        asked.append(len(server.posts("/workflows/validate")))

    assert asked == [1, 1, 1, 2, 2]


@pytest.mark.parametrize("key", [None, KEY])
def test_passwords_of_a_netrc_file_are_not_sent(serve, monkeypatch, tmp_path, key):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login somebody password of-another-service\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setattr(remote_module, "WORKFLOWS_REMOTE_API_KEY_TRANSPORT", "header")
    if key:
        monkeypatch.setenv("MOONDREAM2_API_KEY", key)
    server = serve(found(BOX))

    detect()

    sent = {headers.get("Authorization") for _, _, headers in server.requests}
    assert sent == {f"Bearer {KEY}" if key else None}


@pytest.mark.parametrize(
    "answer",
    [
        (500, b""),
        (401, b""),
        (200, b"x"),
        Raw(lambda handler: None),
        (307, b"", {"Location": "{other}/take"}),
    ],
)
def test_the_key_reaches_no_other_host_no_error_and_no_log(serve, start, monkeypatch, caplog, answer):
    monkeypatch.setenv("MOONDREAM2_API_KEY", KEY)
    other = start(lambda *_: (200, {}))
    if isinstance(answer, tuple) and len(answer) == 3:
        answer = (*answer[:2], {"Location": f"{other.url}/take"})
    caplog.set_level(logging.DEBUG)
    serve(answer)

    with pytest.raises(ClientCausedStepExecutionError) as error:
        detect()

    assert other.requests == []
    assert caplog.text
    assert KEY not in caplog.text + chain_of(error.value)


SECRETS = ["secret-key-of-a-test", 'Se"cret\\key/of+a=test&x', "short", "abcdefgh" * 100]


def raw(text):
    return Raw(lambda handler: handler.wfile.write(text.encode()))


@pytest.mark.parametrize("secret", SECRETS, ids=lambda secret: secret[:8])
@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(lambda key: (400, {"message": f"bad request: {key} is no key"}), id="the message"),
        pytest.param(lambda key: (404, {"detail": [{"input": {"api_key": key}}]}), id="the body"),
        pytest.param(lambda key: (422, {"message": json.dumps({"api_key": key})}), id="the body as text"),
        pytest.param(lambda key: (413, [f"Authorization: Bearer {key}"]), id="the header"),
        pytest.param(lambda key: (400, {"message": "x" * 490 + key}), id="cut after 500 characters"),
        pytest.param(lambda key: (400, {"message": "x" * 19_990 + key}), id="a long message"),
        pytest.param(lambda key: (400, {"message": key[1:]}), id="a part"),
        pytest.param(lambda key: (400, {"message": key.upper()}), id="in capitals"),
        pytest.param(lambda key: (400, {"message": f"/path?api_key={quote(key, safe='')}&x=1"}), id="a URL"),
        pytest.param(lambda key: (400, {"message": html.escape(f"<p>{key}</p>")}), id="HTML"),
        pytest.param(
            lambda key: (400, {"message": b64encode(f"Bearer {key}, and more".encode()).decode()}),
            id="base64",
        ),
        pytest.param(lambda key: (400, {"message": key.encode().hex()}), id="hexadecimal"),
        pytest.param(lambda key: (500, {"message": key}), id="a failure"),
        pytest.param(lambda key: (200, key.encode()), id="not JSON"),
        pytest.param(lambda key: (200, {"outputs": key}), id="not a detection"),
        pytest.param(lambda key: found(BOX | {"x": key}), id="a box that is none"),
        pytest.param(lambda key: found(BOX | {"class": key, key: key}), id="a box with more"),
        pytest.param(lambda key: (302, b"", {"Location": f"/{key}"}), id="an address"),
        pytest.param(lambda key: (503, b"", {"Retry-After": key}), id="when to ask again"),
        pytest.param(lambda key: raw(f"{key} is no status\r\n\r\n"), id="no HTTP"),
        pytest.param(lambda key: raw(f"HTTP/1.1 {key}\r\n\r\n"), id="no status"),
        pytest.param(lambda key: raw(f"HTTP/1.1 500 {key}\r\nContent-Length: 0\r\n\r\n"), id="the status"),
        pytest.param(
            lambda key: raw(f"HTTP/1.1 200 OK\r\nno header {key}\r\nX: {key}\r\n\r\n{{}}"),
            id="damaged headers",
        ),
        pytest.param(
            lambda key: raw(f"HTTP/1.1 200 OK\r\nContent-Length: 1, {key}\r\n\r\n{{}}"), id="a damaged length"
        ),
        pytest.param(
            lambda key: raw(f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{key}\r\n{key}\r\n"),
            id="damaged chunks",
        ),
        pytest.param(lambda key: (200, {}, {"Set-Cookie": f"{key}={key}; Expires={key}"}), id="a cookie"),
    ],
)
@pytest.mark.parametrize("place", ["run", "validate"])
def test_whatever_the_other_server_quotes_the_key_stays_secret(
    serve, monkeypatch, caplog, place, answer, secret
):
    monkeypatch.setenv("MOONDREAM2_API_KEY", secret)
    caplog.set_level(logging.DEBUG)
    serve(**{"run": found(BOX), place: answer(secret)})

    shown = ""
    try:
        shown += str(detect())
    except ClientCausedStepExecutionError as error:
        shown += chain_of(error)
        while error is not None:
            shown += repr(error) + str(error)
            error = error.__cause__ or error.__context__
    shown += caplog.text

    data = secret.encode()
    encoded = {b64encode(bytes(shift) + data).decode()[4:-4] for shift in range(3)}
    parts = {secret, quote(secret, safe=""), html.escape(secret), json.dumps(secret), data.hex(), *encoded}
    for part in {part[:16] for part in parts} | {part[-16:] for part in parts}:
        assert len(part) < 4 or part.lower() not in shown.lower()


@pytest.mark.parametrize("key", ["käse", "two\nlines", "\u200bcopied"])
def test_a_key_that_cannot_be_sent_is_reported_without_it(serve, monkeypatch, key):
    monkeypatch.setenv("MOONDREAM2_API_KEY", key)
    serve(found(BOX))

    status, message = failure()

    assert status == 500
    assert "MOONDREAM2_API_KEY is invalid" in message
    assert key not in message


def test_blanks_around_the_key_are_not_sent(serve, monkeypatch):
    monkeypatch.setenv("MOONDREAM2_API_KEY", f" {KEY}\n")
    server = serve(found(BOX))

    detect()

    assert {body["api_key"] for _, body, _ in server.requests} == {KEY}


def test_a_caller_s_key_that_cannot_be_sent_is_a_client_error(serve, monkeypatch):
    server = serve(found(BOX))
    monkeypatch.delenv("MOONDREAM2_API_URL")
    monkeypatch.setattr(remote_module, "WORKFLOWS_REMOTE_API_TARGET", "self-hosted")
    monkeypatch.setattr(remote_module, "LOCAL_INFERENCE_API_URL", server.url)

    status, message = failure(mode=StepExecutionMode.REMOTE, api_key="ключ")

    assert status == 400
    assert "`api_key` cannot be sent" in message


@pytest.mark.parametrize(
    "answer",
    [
        (400, {"message": "bad request"}),
        (400, {"detail": f"{remote_detection.BLOCK_TYPE} is too new"}),
        (404, {"detail": "Not Found"}),
        (413, {"message": "too large"}),
        (422, {"detail": [{"loc": ["body"], "msg": "Field required"}]}),
    ],
)
def test_only_an_unknown_block_means_that_there_is_no_plugin(serve, answer):
    server = serve(found(BOX), validate=in_turn(answer, (200, {"status": "ok"})))

    status, message = failure()

    assert status == 502
    assert f"does not answer whether it has this plugin (HTTP {answer[0]}:" in message
    assert server.posts("/infer/lmm") == []
    # It is not remembered.
    assert detect()[0]["counts"] == {"dog": 0, "cat": 1}


def test_scores_that_are_not_real_are_logged_once(serve, monkeypatch, caplog):
    answers = in_turn(UNKNOWN_BLOCK, UNKNOWN_BLOCK, (200, {"status": "ok"}), UNKNOWN_BLOCK)
    server = serve(in_turn((200, {"predictions": []})), validate=answers)
    now = [1000.0]
    monkeypatch.setattr(remote_module, "time", SimpleNamespace(monotonic=lambda: now[0]))

    logged = []
    for seconds in (0, 10, 301):
        now[0] += seconds
        detect()
        logged.append(sum("every score is 1" in message for message in caplog.messages))

    assert len(server.posts("/workflows/validate")) == 2
    assert logged == [1, 1, 1]


def test_servers_that_name_each_other_end_after_one_request(serve, model_manager):
    """The other server runs the engine in this process, so it is also told to send its images there."""

    def run(path, body):
        engine = make_engine(body["specification"], model_manager)
        image = {"type": "base64", "value": body["inputs"]["image"]["value"]}
        try:
            engine.run(runtime_parameters=body["inputs"] | {"image": image})
        except ClientCausedStepExecutionError as error:
            return error.status_code, {"message": str(error)}
        return found()

    server = serve(run)

    status, message = failure()

    assert status == 502
    assert "sends its images to another server, too; set MOONDREAM2_API_URL on one server only" in message
    assert len(server.posts("/workflows/run")) == 1


def test_a_server_in_remote_mode_does_not_send_on_what_another_server_sent(serve, monkeypatch):
    server = serve(found(BOX))
    monkeypatch.delenv("MOONDREAM2_API_URL")
    monkeypatch.setattr(remote_module, "WORKFLOWS_REMOTE_API_TARGET", "self-hosted")
    monkeypatch.setattr(remote_module, "LOCAL_INFERENCE_API_URL", server.url)
    monkeypatch.setattr(
        Moondream2PromptDetectionBlockV1,
        "_workflow_step_name",
        remote_detection.FORWARDED_STEP,
        raising=False,
    )

    assert failure(mode=StepExecutionMode.REMOTE)[0] == 508
    assert server.requests == []


def test_remote_mode_sends_to_the_target_of_the_engine(serve, monkeypatch):
    server = serve(found(BOX))
    monkeypatch.delenv("MOONDREAM2_API_URL")
    monkeypatch.setattr(remote_module, "WORKFLOWS_REMOTE_API_TARGET", "self-hosted")
    monkeypatch.setattr(remote_module, "LOCAL_INFERENCE_API_URL", server.url)

    (result,) = detect(mode=StepExecutionMode.REMOTE, api_key="caller")

    assert result["counts"] == {"dog": 0, "cat": 1}
    assert {body["api_key"] for _, body, _ in server.requests} == {"caller"}


def test_a_password_in_the_target_of_the_engine_is_refused_and_not_logged(serve, monkeypatch, caplog):
    server = serve(found(BOX))
    monkeypatch.delenv("MOONDREAM2_API_URL")
    monkeypatch.setattr(remote_module, "WORKFLOWS_REMOTE_API_TARGET", "self-hosted")
    monkeypatch.setattr(
        remote_module, "LOCAL_INFERENCE_API_URL", server.url.replace("://", "://user:hidden@")
    )

    status, message = failure(mode=StepExecutionMode.REMOTE)

    assert status == 500
    assert "LOCAL_INFERENCE_API_URL has a user or a password in it" in message
    assert "hidden" not in message + caplog.text
    assert server.requests == []


def test_the_hosted_target_has_no_moondream2(monkeypatch):
    monkeypatch.setattr(remote_module, "WORKFLOWS_REMOTE_API_TARGET", "hosted")

    status, message = failure(mode=StepExecutionMode.REMOTE)

    assert status == 501
    assert "hosted API has no Moondream2; set MOONDREAM2_API_URL" in message


def test_the_bundled_model_on_a_server_without_the_plugin(serve):
    serve((200, {}), validate=UNKNOWN_BLOCK)

    status, message = failure(model="moondream2-demo")

    assert status == 400
    assert "install the plugin there" in message


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("URL", "ftp://host", "MOONDREAM2_API_URL is invalid"),
        ("URL", "gpu-server", "MOONDREAM2_API_URL is invalid"),
        ("URL", f"http://user:{KEY}@host", "set the key in MOONDREAM2_API_KEY"),
        ("URL", f"http://host/?api_key={KEY}", "set the key in MOONDREAM2_API_KEY"),
        ("TIMEOUT", "-1", "MOONDREAM2_API_TIMEOUT is invalid"),
        ("TIMEOUT", "soon", "MOONDREAM2_API_TIMEOUT is invalid"),
    ],
)
def test_an_invalid_setting_is_reported_by_name_without_its_value(monkeypatch, name, value, problem):
    monkeypatch.setenv(f"MOONDREAM2_API_{name}", value)

    with pytest.raises(ClientCausedStepExecutionError) as error:
        detect()

    assert error.value.status_code == 500
    assert problem in str(error.value)
    assert f"'{value}'" not in chain_of(error.value)
    assert KEY not in chain_of(error.value)
