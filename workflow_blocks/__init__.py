"""Moondream2 prompt detection and more for Roboflow Workflows (`WORKFLOWS_PLUGINS=workflow_blocks`)."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from inference.core.workflows.prototypes.block import WorkflowBlock

# Only blocks of this source are given the server's model manager, key and settings.
BLOCKS_SOURCE = "workflows_core"


def load_blocks() -> "list[type[WorkflowBlock]]":
    """The blocks of this plugin, as Inference asks for them, without those that the operator disables.

    `WORKFLOW_DISABLED_BLOCK_TYPES` and `WORKFLOW_DISABLED_BLOCK_PATTERNS` apply as they do to core blocks. It
    also registers this plugin's model class with Inference, so that blocks run on it.
    """
    # Imported here, so that importing the package (for its runtime, say) stays light.
    from inference.core.workflows.core_steps.loader import _should_filter_block as is_disabled

    from workflow_blocks.blocks.detections_dataset_export.v1 import DetectionsDatasetExportBlockV1
    from workflow_blocks.blocks.detections_table.v1 import DetectionsTableBlockV1
    from workflow_blocks.blocks.moondream2.v1 import Moondream2BlockV1
    from workflow_blocks.blocks.moondream2_prompt_detection.v1 import Moondream2PromptDetectionBlockV1
    from workflow_blocks.inference_host.registry import register

    register()
    blocks = [
        Moondream2PromptDetectionBlockV1,
        Moondream2BlockV1,
        DetectionsTableBlockV1,
        DetectionsDatasetExportBlockV1,
    ]
    return [block for block in blocks if not is_disabled(block)]
