"""Writes a trained model as the bundled package."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

from workflow_blocks.inference_host.model_package import write_package_files
from workflow_blocks.moondream2.checkpoint import CONFIG_FILE, TOKENIZER_FILE, WEIGHTS_FILE
from workflow_blocks.moondream2.model import Moondream2


def export_package(model: Moondream2, tokenizer: Tokenizer, folder: Path) -> None:
    """Writes weights (float16, published names), tokenizer, config and what makes it a package."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {f"model.{name}": tensor.to(torch.float16) for name, tensor in model.state_dict().items()}
    save_file(state, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    (folder / WEIGHTS_FILE).chmod(0o644)  # the library leaves it to its owner alone
    tokenizer.save(str(folder / TOKENIZER_FILE))
    document = {"model_type": "moondream1", "config": model.config.model_dump(mode="json")}
    (folder / CONFIG_FILE).write_text(json.dumps(document, indent=1) + "\n")
    write_package_files(folder)
