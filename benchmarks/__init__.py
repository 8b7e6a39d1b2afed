"""What is fast, and how fast, measured side by side."""

import warnings

from workflow_blocks.inference_host.engine import use_local_settings

# Before anything imports `inference`, which reads its settings then.
use_local_settings()
warnings.filterwarnings("ignore")
