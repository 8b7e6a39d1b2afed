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

any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FEW_OR_MANY = pytest.mark.parametrize("n_examples", [8, pytest.param(200, marks=pytest.mark.long)])


def fuzz(check, n_examples, **strategies):
    """Calls `check` with that many examples, the same at every run."""
    no_limits = settings(
        deadline=None,
        max_examples=n_examples,
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow],
    )
    no_limits(given(**strategies)(check))()


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
    """The result of the last image after a check of all, or None for an error that the caller is told."""
    parameters = {"image": image_bgr(0), "prompts": "shape"} | inputs
    try:
        results = engine.run(runtime_parameters=parameters)
    except CALLER_ERRORS:
        return None
    images = parameters["image"] if isinstance(parameters["image"], list) else [parameters["image"]]
    for image, result in zip(images, results, strict=True):
        if image is None:  # the engine runs no step for an image that is left out
            assert result["predictions"] is None
            continue
        detections = from_engine(result["predictions"], "test")
        assert len(detections) == sum(result["counts"].values())
        assert np.isfinite(detections.xyxy).all()
    return results[-1] if results else None


def test_the_engine_of_these_tests_detects(engine):
    assert run(engine)["counts"]["shape"] > 0


@FEW_OR_MANY
def test_prompts(engine, n_examples):
    @example("x" * 100_000)
    @example("\x00")
    @example("\ud800")
    @example(["a\u202e", "\u0301" * 200, "🦊" * 60])
    @example(["a"] * 1000)
    @example("</s><|endoftext|><|md_reserved_0|>")
    def check(prompts):
        result = run(engine, prompts=prompts)
        if result is not None:
            given_prompts = [prompts] if isinstance(prompts, str) else prompts
            assert list(result["counts"]) == list(
                dict.fromkeys(" ".join(prompt.split()) for prompt in given_prompts)
            )

    fuzz(check, n_examples, prompts=st.text() | st.lists(st.text(), max_size=4))


@FEW_OR_MANY
def test_parameters(engine, n_examples):
    names = ["prompts", "confidence", "max_detections", "iou_threshold", "class_agnostic_nms"]

    def check(inputs):
        run(engine, **inputs)

    fuzz(check, n_examples, inputs=st.dictionaries(st.sampled_from(names), any_json, min_size=1))


@FEW_OR_MANY
def test_arrays_as_images(engine, n_examples):
    def check(image):
        run(engine, image=image)

    arrays = hnp.arrays(
        dtype=st.sampled_from([np.uint8, np.uint16, np.int32, np.float32, np.bool_]),
        shape=hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=40),
    )
    fuzz(check, n_examples, image=arrays)


@FEW_OR_MANY
def test_fuzzed_images(engine, n_examples):
    def check(image):
        run(engine, image=image)

    documents = st.fixed_dictionaries(
        {
            "type": st.sampled_from(["base64", "numpy", "numpy_object", "file", "url", "x"]),
            "value": any_json | st.binary(max_size=50),
        }
    )
    fuzz(check, n_examples, image=any_json | documents | st.lists(any_json | documents, max_size=3))


@pytest.mark.parametrize("block", load_blocks(), ids=lambda block: block.__name__)
@FEW_OR_MANY
def test_manifests(block, n_examples):
    """A manifest takes a document or says what is wrong with it; nothing else is raised."""
    manifest = block.get_manifest()
    typed = manifest.model_fields["type"].annotation.__args__[0]
    names = st.sampled_from(sorted(manifest.model_fields))

    def check(document):
        with suppress(ValidationError):
            manifest.model_validate({"type": typed, "name": "step"} | document)

    values = any_json | st.sampled_from(["$inputs.a", "$steps.a.b", "$"])
    fuzz(check, n_examples, document=st.dictionaries(names, values))


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


@pytest.mark.parametrize("n_definitions", [100, pytest.param(1000, marks=pytest.mark.long)])
def test_mutated_definitions_raise_errors_of_the_engine(model_manager, n_definitions):
    """The engine itself answers some with a bare `TypeError` or `ValidationError`: none of ours."""
    chance = random.Random(5)
    definitions = [read_definition(name) for name in workflow_names()]
    compiled = refused = 0
    for _ in range(n_definitions):
        definition = mutated(chance.choice(definitions), chance)
        try:
            make_engine(definition, model_manager)
            compiled += 1
        except WorkflowError:
            refused += 1
        except Exception as error:
            if is_raised_by_this_package(error):
                raise

    assert compiled > 0.05 * n_definitions
    assert refused > 0.5 * n_definitions
