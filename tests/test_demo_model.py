"""The bundled model on scenes that it has never seen; `make evaluate` gives the full figures."""

from pathlib import Path

import pytest
import safetensors

from tests.scenes import FIRST_SEED
from training.evaluate_shapes import evaluate, false_alarms_of_other_things
from workflow_blocks.bundled_model import demo_model_folder

SEEDS = range(FIRST_SEED + 1000, FIRST_SEED + 1030)


@pytest.fixture(scope="module")
def scores(demo_detector):
    return evaluate(demo_detector, SEEDS)


def test_the_weights_are_small():
    assert (demo_model_folder() / "model.safetensors").stat().st_size < 8_000_000


def test_the_package_has_all_its_files():
    names = {path.name for path in demo_model_folder().iterdir()}

    assert names >= {
        "README.md",
        "config.json",
        "model.py",
        "model.safetensors",
        "model_config.json",
        "tokenizer.json",
    }


def test_names_are_those_of_published_weights():
    golden = Path(__file__).parent / "golden" / "moondream2_tiny" / "model.safetensors"

    def kinds(path):
        with safetensors.safe_open(path, framework="np") as file:
            return {".".join(part for part in name.split(".") if not part.isdigit()) for name in file.keys()}  # noqa: SIM118

    assert kinds(demo_model_folder() / "model.safetensors") == kinds(golden)


def test_it_finds_the_objects_that_prompts_name(scores):
    result = scores["all"].precision.compute()

    assert result.map50 > 0.75
    assert result.map50_95 > 0.5


def test_it_finds_nothing_in_empty_scenes(scores, demo_detector):
    assert scores["all"].false_alarms < 0.1
    assert false_alarms_of_other_things(demo_detector, SEEDS) < 0.15
