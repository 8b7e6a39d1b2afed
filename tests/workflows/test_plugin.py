"""How Inference sees the plugin."""

import importlib
import multiprocessing
import os
import subprocess
import sys

import pytest
from inference.core.workflows.execution_engine.introspection.blocks_loader import describe_available_blocks
from roboflow_workflows.core_steps import loader

from workflow_blocks import load_blocks
from workflow_blocks.inference_host.engine import LOCAL_SETTINGS, use_local_settings

OURS = {
    "workflow_blocks/moondream2_prompt_detection@v1",
    "workflow_blocks/moondream2@v1",
    "workflow_blocks/detections_table@v1",
    "workflow_blocks/detections_dataset_export@v1",
}


def test_inference_lists_our_blocks():
    blocks = describe_available_blocks(dynamic_blocks=[]).blocks

    assert {block.manifest_type_identifier for block in blocks} >= OURS


def test_every_field_is_described_with_examples():
    blocks = describe_available_blocks(dynamic_blocks=[]).blocks
    ours = [block for block in blocks if block.manifest_type_identifier in OURS]
    assert len(ours) == len(OURS)
    for block in ours:
        fields = block.block_schema["properties"]
        for name in fields.keys() - {"type", "name"}:
            assert fields[name].get("description"), name
            assert fields[name].get("examples"), name


def test_settings_of_the_user_are_kept(monkeypatch):
    for name in LOCAL_SETTINGS:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WORKFLOWS_PLUGINS", "another_plugin")

    use_local_settings()

    own = {name: os.environ[name] for name in LOCAL_SETTINGS}
    assert own == LOCAL_SETTINGS | {"WORKFLOWS_PLUGINS": "another_plugin"}


def test_importing_the_package_imports_neither_torch_nor_inference():
    code = (
        "import sys, workflow_blocks; "
        "sys.exit(bool({'torch', 'inference', 'inference_models', 'numpy'} & set(sys.modules)))"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def import_blocks_anew():
    """Loads the blocks in a process that has Inference but nothing of this package; fails for the runtime."""
    for name in [name for name in sys.modules if name.split(".")[0] == "workflow_blocks"]:
        del sys.modules[name]
    blocks = importlib.import_module("workflow_blocks").load_blocks()
    assert len(blocks) == len(OURS)
    runtime = {name for name in sys.modules if name.startswith("workflow_blocks.moondream2.")}
    assert runtime == {"workflow_blocks.moondream2.config"}


def test_loading_the_blocks_imports_nothing_of_the_runtime_but_its_numbers():
    # A fork: a new process would need half a minute to import Inference.
    process = multiprocessing.get_context("fork").Process(target=import_blocks_anew)
    process.start()
    process.join()

    assert process.exitcode == 0


DETECTION, MOONDREAM2, TABLE, EXPORT = (
    "Moondream2PromptDetectionBlockV1",
    "Moondream2BlockV1",
    "DetectionsTableBlockV1",
    "DetectionsDatasetExportBlockV1",
)
# Settings of an operator, and what is left of our blocks. Values are as Inference reads them: in lower case.
DISABLED = [
    pytest.param(["sink"], [], {DETECTION, MOONDREAM2, TABLE}, id="sinks"),
    pytest.param(["model"], [], {TABLE, EXPORT}, id="models"),
    pytest.param(["sink", "formatter", "model"], [], set(), id="several types"),
    pytest.param(["video"], [], {DETECTION, MOONDREAM2, TABLE, EXPORT}, id="another type"),
    pytest.param([], ["moondream2"], {TABLE, EXPORT}, id="a class"),
    pytest.param([], ["dataset export"], {DETECTION, MOONDREAM2, TABLE}, id="a name"),
    pytest.param([], ["blocks.detections_"], {DETECTION, MOONDREAM2}, id="a module"),
    pytest.param([], ["workflow_blocks"], set(), id="the plugin"),
    pytest.param([], ["webhook"], {DETECTION, MOONDREAM2, TABLE, EXPORT}, id="another pattern"),
    pytest.param(["sink"], ["moondream2"], {TABLE}, id="both"),
    pytest.param([], [], {DETECTION, MOONDREAM2, TABLE, EXPORT}, id="nothing"),
]


@pytest.mark.parametrize(("types", "patterns", "left"), DISABLED)
def test_blocks_that_an_operator_disables_are_not_loaded(monkeypatch, types, patterns, left):
    monkeypatch.setattr(loader, "WORKFLOW_DISABLED_BLOCK_TYPES", types)
    monkeypatch.setattr(loader, "WORKFLOW_DISABLED_BLOCK_PATTERNS", patterns)

    assert {block.__name__ for block in load_blocks()} == left


@pytest.mark.long
def test_the_settings_of_an_operator_disable_blocks():
    code = """
from inference.core.workflows.execution_engine.introspection.blocks_loader import load_workflow_blocks
print(*(block.block_class.__name__ for block in load_workflow_blocks()))
"""
    settings = {"WORKFLOW_DISABLED_BLOCK_TYPES": " Sink", "WORKFLOW_DISABLED_BLOCK_PATTERNS": "MOONDREAM,x_y"}

    ended = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | settings, check=True, capture_output=True, text=True
    )

    names = set(ended.stdout.splitlines()[-1].split())
    assert TABLE in names
    assert "DynamicCropBlockV1" in names
    assert names.isdisjoint({DETECTION, MOONDREAM2, EXPORT, "LocalFileSinkBlockV1"})
