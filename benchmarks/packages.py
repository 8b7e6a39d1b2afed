"""Local model packages with random weights, for measuring sizes that cannot be shipped."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from workflow_blocks.bundled_model import demo_model_folder
from workflow_blocks.inference_host.model_package import write_package_files
from workflow_blocks.moondream2.checkpoint import CONFIG_FILE, TOKENIZER_FILE, WEIGHTS_FILE
from workflow_blocks.moondream2.config import Moondream2Config, RegionConfig, TextConfig, VisionConfig
from workflow_blocks.moondream2.model import Moondream2

RELEASED = Moondream2Config()

# A quarter of every width; heads keep theirs.
QUARTER_WIDTH = Moondream2Config(
    vision=VisionConfig(enc_dim=288, enc_ff_dim=1076, enc_n_heads=4, proj_out_dim=512, proj_inner_dim=2048),
    text=TextConfig(dim=512, ff_dim=2048, n_heads=8, n_kv_heads=8),
    region=RegionConfig(dim=512, inner_dim=2048),
)

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# The largest that is not too slow to measure there.
LARGE_NAME, LARGE = ("released size", RELEASED) if DEVICE == "cuda" else ("quarter width", QUARTER_WIDTH)

# Random weights never say that there is no more; every prompt is to find as many.
OBJECTS_PER_PROMPT = 5
_MODULE = f'''"""The runtime, which here stops after {OBJECTS_PER_PROMPT} objects for each prompt."""

from workflow_blocks.inference_host.model import Moondream2Model


class FewObjects(Moondream2Model):
    def detect(self, images, classes, max_new_tokens=None, **others):
        return super().detect(images, classes, max_new_tokens={3 * OBJECTS_PER_PROMPT}, **others)
'''


@contextmanager
def random_package(config: Moondream2Config, dtype: torch.dtype) -> Iterator[Path]:
    """A package of the given sizes, removed afterwards."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "package"
        folder.mkdir()
        save_file(_random_weights(config, dtype), folder / WEIGHTS_FILE)
        (folder / CONFIG_FILE).write_text(f'{{"config": {config.model_dump_json()}}}')
        shutil.copy(demo_model_folder() / TOKENIZER_FILE, folder / TOKENIZER_FILE)
        write_package_files(folder)
        model_config = folder / "model_config.json"
        model_config.write_text(model_config.read_text().replace("Moondream2Model", "FewObjects"))
        (folder / "model.py").write_text(_MODULE)
        yield folder


def _random_weights(config: Moondream2Config, dtype: torch.dtype) -> dict[str, Tensor]:
    """Weights that keep activations of ordinary size."""
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in Moondream2(config).state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for name, shape in shapes.items():
        is_gain = name.endswith(("ln.weight", "ln1.weight", "ln2.weight", "post_ln.weight"))
        if is_gain:
            weight = torch.ones(shape, dtype=dtype)
        else:
            weight = torch.empty(shape, dtype=dtype).normal_(0, 0.5 * shape[-1] ** -0.5, generator=generator)
        weights[f"model.{name}"] = weight
    # The end of an answer is never the most likely token.
    weights["model.text.lm_head.bias"][config.tokenizer.eos_id] = -1e4
    return weights
