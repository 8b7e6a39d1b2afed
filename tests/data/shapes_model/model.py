"""Tells Inference where the runtime is. The weights bring no code of their own."""

from workflow_blocks.inference_host.model import Moondream2Model

__all__ = ["Moondream2Model"]
