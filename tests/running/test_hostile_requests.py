"""Hostile requests to the real server: none makes it fail, and no answer or log has its key."""

import base64
import json
import random
from itertools import product

import pytest
import requests

from tests.blocks.test_manifests import FIELDS, STEPS
from tests.real_server import running_server
from tests.test_image_files import FILES, png_of_size
from tests.workflows.definitions import workflow

KEY = "marker-of-the-key-4711"
N_REQUESTS = 400


def nested(depth):
    value = 1
    for _ in range(depth):
        value = [value]
    return value


VALUES = [
    *(None, True, -1, 0, 2.5, 1e308, 10**30, float("nan"), float("inf")),
    *(
        "",
        " ",
        "\0",
        "a\0b",
        "\ud800",
        "a" * 300,
        "a" * 100_000,
        "\r\nX: y",
        "{{ x }}",
        "%s%n",
        "e\u0301" * 300,
    ),
    *("../../etc", "~nosuchuser/x", "/dev/null/x", "/proc/self/mem", "..", "/", "a/" * 200),
    *("$steps.none.x", "$steps.detection.predictions", "$inputs.none", "$inputs.image", "$steps", "$"),
    *([], [None], [1], ["a", None], ["\ud800"], ["a"] * 10_000, [["a"]], nested(200)),
    *({}, {"\ud800": 1}, {"train": float("nan")}, {"..": 1}, {"a/b": 1}, {"type": "StaticCaseResult"}),
]
GOOD = {"type": "base64", "value": base64.b64encode(FILES["png"]).decode()}


def hostile_images():
    # OpenCV itself crashes on some damaged JPEG 2000 files.
    for content in (b"", b"no image", bytes(5000), *(file[: len(file) // 2] for file in FILES.values())):
        for kind in ("base64", "numpy", "numpy_object", "file", "url", "nothing", None):
            yield {"type": kind, "value": base64.b64encode(content).decode()}
    for size in ((40_000, 40_000), (2**31 - 1, 2**31 - 1), (0, 0)):
        yield {"type": "base64", "value": base64.b64encode(png_of_size(*size)).decode()}
    yield from ({"type": "base64", "value": value} for value in VALUES)
    yield from VALUES


# By name, with a model that the server has.
STEPS_OF_SERVER = {step["name"]: dict(step) for step in STEPS.values()}
STEPS_OF_SERVER["detection"]["model_version"] = "moondream2-demo"


def request_with(name, field, value, source):
    """A request in which a field of a step has a value: in the definition, or from an input or a step."""
    tested, others, inputs, given = STEPS_OF_SERVER[name], [], (), {"image": GOOD}
    if name != "detection":
        others.append(STEPS_OF_SERVER["detection"])
    if source == "definition":
        tested = tested | {field: value}
    elif source == "input":
        tested, inputs, given = tested | {field: "$inputs.value"}, ("value",), given | {"value": value}
    else:
        default = {"type": "StaticCaseResult", "value": value}
        switch = {"type": "CasesDefinition", "cases": [], "default": default}
        expression = {"type": "roboflow_core/expression@v1", "data": {}, "switch": switch}
        others.append(expression | {"name": "given"})
        tested = tested | {field: "$steps.given.output"}
    definition = workflow(*others, tested, inputs=inputs, outputs={"all": f"$steps.{name}.*"})
    return {"specification": definition, "inputs": given}


@pytest.fixture(scope="module")
def hostile_server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    settings = {"MOONDREAM2_API_KEY": KEY, "OPENCV_IO_MAX_IMAGE_PIXELS": "50000000", "LOG_LEVEL": "DEBUG"}
    with running_server(folder, "--write-directory", str(folder / "data"), **settings) as server:
        yield server
    log = (folder / "server.log").read_text()
    assert len(log) > 1000
    assert KEY not in log


def check(server, name, request):
    answer = requests.post(
        f"{server.address}/workflows/run",
        data=json.dumps(request),  # unlike `json=`, it sends NaN
        headers={"Content-Type": "application/json"},
        timeout=120,
    )
    assert KEY not in answer.text + str(answer.headers)
    # 503: an id of a model that would have to be downloaded.
    assert answer.status_code < 500 or answer.status_code == 503, f"{name}: {answer.text[:500]}"


@pytest.mark.long
def test_no_value_of_a_field_makes_the_server_fail(hostile_server):
    fields = [(STEPS[manifest]["name"], field) for manifest, field in (case.values for case in FIELDS)]
    all_cases = list(product(fields, VALUES, ("definition", "input", "step")))
    for (name, field), value, source in random.Random(0).sample(all_cases, N_REQUESTS):
        case = f"{name}.{field} from {source}: {str(value)[:80]!r}"
        check(hostile_server, case, request_with(name, field, value, source))


@pytest.mark.long
def test_no_image_makes_the_server_fail(hostile_server):
    for image in hostile_images():
        request = request_with("detection", "confidence", 0.5, "definition") | {"inputs": {"image": image}}
        check(hostile_server, str(image)[:80], request)
