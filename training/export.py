"""Writes a trained model as the bundled package, and the heads that only training uses beside it."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from training.trainee import Trainee
from workflow_blocks.inference_host.model_package import write_package_files
from workflow_blocks.moondream2.checkpoint import CONFIG_FILE, TOKENIZER_FILE, WEIGHTS_FILE
from workflow_blocks.moondream2.model import Moondream2

# Of the bundled model.
BUNDLED_HEADS = Path(__file__).parent / "heads.safetensors"


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


def heads_beside(package: Path) -> Path:
    return package.with_name(f"{package.name}.heads.safetensors")


def save_heads(trainee: Trainee, file: Path) -> None:
    save_file({name: tensor.to(torch.float16) for name, tensor in _heads(trainee).items()}, file)


def load_heads(trainee: Trainee, file: Path) -> None:
    trainee.load_state_dict({**trainee.state_dict(), **load_file(file)})


def _heads(trainee: Trainee) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = trainee.state_dict()
    return {name: tensor for name, tensor in state.items() if not name.startswith("model.")}
