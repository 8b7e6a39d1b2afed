"""How Inference sees the plugin."""

import subprocess
import sys

from inference.core.workflows.execution_engine.introspection.blocks_loader import describe_available_blocks

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
    for block in (block for block in blocks if block.manifest_type_identifier in OURS):
        fields = block.block_schema["properties"]
        for name in fields.keys() - {"type", "name"}:
            assert fields[name].get("description"), name
            assert fields[name].get("examples"), name


def test_importing_the_package_imports_neither_torch_nor_inference():
    code = (
        "import sys, workflow_blocks; "
        "sys.exit(bool({'torch', 'inference', 'inference_models', 'numpy'} & set(sys.modules)))"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_loading_the_blocks_imports_nothing_of_the_runtime_but_its_numbers():
    code = (
        "import sys, workflow_blocks; workflow_blocks.load_blocks(); "
        "runtime = {name for name in sys.modules if name.startswith('workflow_blocks.moondream2.')}; "
        "sys.exit(runtime != {'workflow_blocks.moondream2.config'})"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
