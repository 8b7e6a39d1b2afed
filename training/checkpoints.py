"""Checkpoints of a training run: written whole or not at all, so that a kill at any time loses little."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from training.trainee import Trainee

LATEST = "latest.pt"


@dataclass(frozen=True)
class Progress:
    """How far a run is: a stage, its steps that are done, and the seconds of training so far."""

    stage: str
    step: int
    seconds: float


def save(
    folder: Path, trainee: Trainee, optimizers: Sequence[torch.optim.Optimizer], progress: Progress
) -> None:
    state = {
        "trainee": trainee.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
        "progress": vars(progress),
    }
    partial = folder / f"{LATEST}.partial"
    torch.save(state, partial)
    partial.rename(folder / LATEST)


def keep_as(folder: Path, name: str) -> None:
    """Keeps the latest checkpoint under another name, too."""
    kept = folder / name
    kept.unlink(missing_ok=True)
    kept.hardlink_to(folder / LATEST)


def load(folder: Path, device: torch.device) -> dict[str, Any] | None:
    path = folder / LATEST
    return torch.load(path, weights_only=True, map_location=device) if path.exists() else None
