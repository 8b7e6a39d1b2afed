"""A stand-in for the Python that comes with the released weights, for Inference's own class to run.

It has what that class calls. The boxes are those of this plugin's runtime, changed as `changes.py` says.
"""

from pathlib import Path

import numpy as np
import torch
from transformers import PretrainedConfig, PreTrainedModel

from workflow_blocks.moondream2.config import Moondream2Config
from workflow_blocks.moondream2.runtime import Query, Runtime

from .changes import changed

FOLDER = Path(__file__).parent


class HfConfig(PretrainedConfig):
    model_type = "moondream1"

    def __init__(self, config=None, **others):
        super().__init__(**others)
        self.config = config or {}


class Text(torch.nn.Module):
    def __init__(self, config):
        super().__init__()
        self.wte = torch.nn.Parameter(torch.zeros(config.vocab_size, config.dim))


class Moondream(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.config = Moondream2Config.from_file(FOLDER / "config.json")
        self.text = Text(self.config.text)


class HfMoondream(PreTrainedModel):
    config_class = HfConfig

    def __init__(self, config):
        super().__init__(config)
        self.model = Moondream()
        self.runtime = None

    def encode_image(self, image):
        self.runtime = self.runtime or Runtime.from_folder(FOLDER, dtype=self.model.text.wte.dtype)
        return self.runtime.encode_images([np.asarray(image)])[0]

    def detect(self, image, object, settings):
        print("the package's Python prints")  # noqa: T201
        (found,) = self.runtime.detect([Query(image, object)])
        return {"objects": changed(object, found)}
