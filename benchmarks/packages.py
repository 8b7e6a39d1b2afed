"""Local model packages with random weights, for measuring sizes that cannot be shipped."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import save_file

from workflow_blocks.bundled_model import demo_model_folder
from workflow_blocks.inference_host.model_package import write_package_files
from workflow_blocks.moondream2.checkpoint import CONFIG_FILE, TOKENIZER_FILE, WEIGHTS_FILE
from workflow_blocks.moondream2.config import Moondream2Config, RegionConfig, TextConfig, VisionConfig
from workflow_blocks.moondream2.random_weights import random_weights

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
        save_file(random_weights(config, dtype), folder / WEIGHTS_FILE)
        (folder / CONFIG_FILE).write_text(f'{{"config": {config.model_dump_json()}}}')
        (folder / TOKENIZER_FILE).write_text(_tokenizer(config.text.vocab_size))
        write_package_files(folder)
        model_config = folder / "model_config.json"
        model_config.write_text(model_config.read_text().replace("Moondream2Model", "FewObjects"))
        (folder / "model.py").write_text(_MODULE)
        yield folder


def _tokenizer(vocab_size: int) -> str:
    """The bundled model's tokenizer, with a meaningless word for every other id."""
    tokenizer = json.loads((demo_model_folder() / TOKENIZER_FILE).read_text())
    vocabulary = tokenizer["model"]["vocab"]
    known = {*vocabulary.values(), *(token["id"] for token in tokenizer["added_tokens"])}
    vocabulary |= {f"<{token}>": token for token in range(vocab_size) if token not in known}
    return json.dumps(tokenizer)
