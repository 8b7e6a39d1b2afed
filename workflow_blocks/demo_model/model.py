"""Tells Inference where the runtime is. The weights bring no code of their own."""

from workflow_blocks.moondream2.inference_model import Moondream2Model

__all__ = ["Moondream2Model"]
