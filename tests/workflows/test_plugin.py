"""How Inference sees the plugin."""

import importlib
import multiprocessing
import os
import subprocess
import sys

from inference.core.workflows.execution_engine.introspection.blocks_loader import describe_available_blocks

from workflow_blocks.inference_host.engine import LOCAL_SETTINGS, use_local_settings

OURS = {
    "workflow_blocks/moondream2_prompt_detection@v1",
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
