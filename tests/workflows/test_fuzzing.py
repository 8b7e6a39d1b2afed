"""Whatever strangers send: results, or errors of the engine's own that say what is wrong."""

import copy
import random
import traceback
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from inference.core.workflows.errors import (
    ClientCausedStepExecutionError,
    RuntimeInputError,
    WorkflowError,
    WorkflowSyntaxError,
)
from pydantic import ValidationError

from tests.scenes import image_bgr
from tests.workflows.definitions import detection_workflow
from workflow_blocks import load_blocks
from workflow_blocks.blocks.common.data_representation import from_engine
from workflow_blocks.inference_host.engine import make_engine
from workflow_blocks.running.definitions import read_definition, workflow_names

CALLER_ERRORS = (WorkflowSyntaxError, RuntimeInputError, ClientCausedStepExecutionError)
N_MUTATED_DEFINITIONS = 1000

any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
fuzzed = settings(
    deadline=None,
    max_examples=60,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(scope="module")
def engine(model_manager):
    names = ("prompts", "confidence", "max_detections", "iou_threshold", "class_agnostic_nms")
    fields = {name: f"$inputs.{name}" for name in names}
    definition = detection_workflow(inputs=names, **fields)
    defaults = {"confidence": 0.0, "max_detections": 50, "iou_threshold": 0.5, "class_agnostic_nms": False}
    for entry in definition["inputs"]:
        if entry["name"] in defaults:
            entry["default_value"] = defaults[entry["name"]]
    return make_engine(definition, model_manager)


def run(engine, **inputs):
    """A sound result, or None for an error that the caller is told."""
    try:
        (result,) = engine.run(runtime_parameters={"image": image_bgr(0), "prompts": "shape"} | inputs)
    except CALLER_ERRORS:
        return None
    detections = from_engine(result["predictions"], "test")
    assert len(detections) == sum(result["counts"].values())
    assert np.isfinite(detections.xyxy).all()
    return result


@fuzzed
@given(prompts=st.text() | st.lists(st.text(), max_size=4))
@example("x" * 100_000)
@example("\x00")
@example("\ud800")
@example(["a\u202e", "\u0301" * 200, "🦊" * 60])
@example(["a"] * 1000)
@example("</s><|endoftext|><|md_reserved_0|>")
def test_prompts(engine, prompts):
    result = run(engine, prompts=prompts)

    if result is not None:
        given_prompts = [prompts] if isinstance(prompts, str) else prompts
        assert set(result["counts"]) <= {prompt.strip() for prompt in given_prompts}


@fuzzed
@given(
    inputs=st.dictionaries(
        st.sampled_from(["prompts", "confidence", "max_detections", "iou_threshold", "class_agnostic_nms"]),
        any_json,
        min_size=1,
    )
)
def test_parameters(engine, inputs):
    run(engine, **inputs)


@fuzzed
@given(
    image=hnp.arrays(
        dtype=st.sampled_from([np.uint8, np.uint16, np.int32, np.float32, np.bool_]),
        shape=hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=40),
    )
)
def test_arrays_as_images(engine, image):
    run(engine, image=image)


@fuzzed
@given(
    image=any_json
    | st.fixed_dictionaries(
        {
            "type": st.sampled_from(["base64", "numpy", "numpy_object", "file", "url", "x"]),
            "value": any_json | st.binary(max_size=50),
        }
    )
)
def test_anything_as_an_image(engine, image):
    run(engine, image=image)


@pytest.mark.parametrize("block", load_blocks(), ids=lambda block: block.__name__)
@fuzzed
@given(data=st.data())
def test_manifests(block, data):
    """A manifest takes a document or says what is wrong with it; nothing else is raised."""
    manifest = block.get_manifest()
    names = st.sampled_from(sorted(manifest.model_fields))
    document = data.draw(st.dictionaries(names, any_json | st.sampled_from(["$inputs.a", "$steps.a.b", "$"])))
    typed = manifest.model_fields["type"].annotation.__args__[0]
    with suppress(ValidationError):
        manifest.model_validate({"type": typed, "name": "step"} | document)


def places(document, path=()):
    """The path of every value in a JSON document."""
    yield path
    items = (
        document.items()
        if isinstance(document, dict)
        else enumerate(document)
        if isinstance(document, list)
        else ()
    )
    for key, value in items:
        yield from places(value, (*path, key))


def mutated(definition, chance):
    """A definition with one to three values changed, removed, repeated or swapped."""
    definition = copy.deepcopy(definition)
    for _ in range(chance.randint(1, 3)):
        path = chance.choice([path for path in places(definition) if path])
        parent = definition
        for key in path[:-1]:
            parent = parent[key]
        other = chance.choice([path for path in places(definition) if path])
        value = definition
        for key in other:
            value = value[key]
        match chance.randrange(4):
            case 0:
                parent[path[-1]] = chance.choice(
                    [
                        None,
                        "",
                        0,
                        -1,
                        1e308,
                        True,
                        [],
                        {},
                        "$inputs.",
                        "$steps.x.y",
                        "x" * 1000,
                        "\x00",
                        "$steps.detection",
                    ]
                )
            case 1:
                del parent[path[-1]]
            case 2:
                parent[path[-1]] = copy.deepcopy(value)
            case 3 if isinstance(parent, list):
                parent.append(copy.deepcopy(parent[path[-1]]))
    return definition


def is_raised_by_this_package(error):
    frames = traceback.extract_tb(error.__traceback__)
    return any("/workflow_blocks/" in frame.filename and frame.name != "make_engine" for frame in frames)


def test_mutated_definitions_raise_the_engine_s_own_errors(model_manager):
    """The engine itself answers some with a bare `TypeError` or `ValidationError`: none of ours."""
    chance = random.Random(5)
    definitions = [read_definition(name) for name in workflow_names()]
    compiled = refused = 0
    for _ in range(N_MUTATED_DEFINITIONS):
        definition = mutated(chance.choice(definitions), chance)
        try:
            make_engine(definition, model_manager)
            compiled += 1
        except WorkflowError:
            refused += 1
        except Exception as error:
            if is_raised_by_this_package(error):
                raise

    assert compiled > 50
    assert refused > 500
