"""Where packages built by earlier releases find the model class: their `model.py` names this module.

It is the one import from the runtime into `inference_host`; nothing new may use it.
"""

from workflow_blocks.inference_host.model import Moondream2Model

__all__ = ["Moondream2Model"]
