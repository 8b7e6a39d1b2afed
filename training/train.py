"""Trains the demo model: `make train`, or `python -m training.train --help`.

Four stages, each resumed from its last checkpoint when run again:

1. encoder: the vision encoder alone, on what every patch shows;
2. detection: the text decoder and region heads, on the frozen encoder's features;
3. joint: everything together;
4. polish: the same again, from a lower learning rate.

Every batch is drawn from a seed made of stage and step, so that a resumed run goes on as one that was
never stopped.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from training.demo_config import DEMO_CONFIG
from training.detection_stage import Packed, detection_losses, pack, pack_scene, scene_objects
from training.encoder_stage import DenseHead, DenseTargets, crop_batch, dense_loss, turn_randomly
from training.export import export_package
from training.initial_weights import initialise_decoder, initialise_vision
from training.muon import Muon
from training.scene_store import MAX_OBJECTS, Shard, draw_shards, load_shard, shard_path
from training.tokenizer import make_tokenizer
from workflow_blocks.moondream2.model import Moondream2

SEED = 20261123


@dataclass(frozen=True)
class Stage:
    """How long and how fast a stage learns; a batch counts crops in the first stage, then scenes."""

    name: str
    steps: int
    batch_size: int
    learning_rate: float


ENCODER = Stage("encoder", steps=4500, batch_size=32, learning_rate=1.5e-3)
DETECTION = Stage("detection", steps=2400, batch_size=16, learning_rate=1.2e-3)
JOINT = Stage("joint", steps=1100, batch_size=16, learning_rate=6e-4)
POLISH = Stage("polish", steps=480, batch_size=16, learning_rate=4e-4)
STAGES = (ENCODER, DETECTION, JOINT, POLISH)

N_SHARDS = 50
WARM_UP_STEPS = 200
# Muon's learning rate as a multiple of AdamW's.
MUON_FACTOR = 3.3
CHECKPOINT_EVERY = 200

# An empty crop is drawn this many times as often as one that shows one object.
EMPTY_CROP_WEIGHT = 0.15

# Targets start as wide bells around the true bin and narrow to a few bins: places first, precision later.
FIRST_BLUR, LAST_BLUR = 20.0, 3.0


class Trainee(nn.Module):
    """The model and the training-only head that tells what each image embedding shows."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Moondream2(DEMO_CONFIG)
        initialise_vision(self.model.vision)
        initialise_decoder(self.model)
        self.crop_head = DenseHead(DEMO_CONFIG.vision.enc_dim)
        self.embedding_head = DenseHead(DEMO_CONFIG.text.dim)


def main(
    folder: Annotated[Path, typer.Option(help="Where scenes and checkpoints are kept.")] = Path(
        "training/runs"
    ),
    output: Annotated[Path, typer.Option(help="Where the trained package is written.")] = Path(
        "workflow_blocks/demo_model"
    ),
    shards: Annotated[int, typer.Option(help="How many shards of 500 scenes to draw.")] = N_SHARDS,
    scale: Annotated[float, typer.Option(help="Stretches every stage; a small value tries the code.")] = 1.0,
) -> None:
    """Trains the demo model from nothing and writes it as a package."""
    torch.manual_seed(SEED)
    progress = Progress(
        TextColumn("{task.description:>10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[status]}"),
    )
    with progress:
        drawing = progress.add_task("scenes", total=shards, status="")
        for _ in draw_shards(folder / "scenes", shards, DEMO_CONFIG.vision):
            progress.advance(drawing)
        data = [load_shard(shard_path(folder / "scenes", index)) for index in range(shards)]
        trainee = Trainee()
        for stage in STAGES:
            steps = max(1, round(stage.steps * scale))
            prepare = partial(LOSSES[stage], trainee, data, stage, steps)
            run_stage(trainee, stage, steps, prepare, folder, progress)
    export_package(trainee.model, make_tokenizer(DEMO_CONFIG.text.vocab_size), output)
    typer.echo(f"The model is in {output}; `python -m training.evaluate` measures it.")


LossOfStep = Callable[[int], dict[str, Tensor]]


def run_stage(
    trainee: Trainee,
    stage: Stage,
    steps: int,
    prepare: Callable[[], LossOfStep],
    folder: Path,
    progress: Progress,
) -> None:
    """Runs what is left of a stage and keeps checkpoints of it."""
    path = folder / f"{stage.name}.pt"
    parameters = parameters_of(trainee, stage)
    optimizers = make_optimizers(trainee, parameters)
    first = _resume(path, trainee, optimizers, steps)
    task = progress.add_task(stage.name, total=steps, completed=first, status="")
    if first >= steps:
        return
    loss_of_step = prepare()
    for step in range(first, steps):
        for optimizer, factor in zip(optimizers, (1.0, MUON_FACTOR), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = stage.learning_rate * factor * _schedule(step, steps)
            optimizer.zero_grad()
        losses = loss_of_step(step)
        total = torch.stack(list(losses.values())).sum()
        total.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        for optimizer in optimizers:
            optimizer.step()
        status = "  ".join(f"{name} {float(value.detach()):.3f}" for name, value in losses.items())
        progress.update(task, advance=1, status=status)
        if (step + 1) % CHECKPOINT_EVERY == 0 or step + 1 == steps:
            _save(path, trainee, optimizers, step + 1)
            progress.console.print(f"{stage.name} {step + 1}: {status}")


def parameters_of(trainee: Trainee, stage: Stage) -> list[nn.Parameter]:
    """What a stage teaches."""
    vision = trainee.model.vision
    projection = list(vision.proj_mlp.parameters())
    of_projection = {id(parameter) for parameter in projection}
    encoder = [p for p in vision.parameters() if id(p) not in of_projection]
    decoder = [
        parameter
        for part in (trainee.model.text, trainee.model.region, trainee.embedding_head)
        for parameter in part.parameters()
        if parameter.requires_grad
    ]
    if stage is ENCODER:
        return encoder + list(trainee.crop_head.parameters())
    return projection + decoder + ([] if stage is DETECTION else encoder)


def make_optimizers(trainee: Trainee, parameters: list[nn.Parameter]) -> tuple[torch.optim.Optimizer, ...]:
    """AdamW, and Muon for the matrices between hidden layers, which learn far faster with it."""
    model = trainee.model
    hidden = nn.ModuleList(
        [
            model.vision.blocks,
            model.vision.proj_mlp,
            model.text.blocks,
            model.region.coord_decoder.fc1,
            model.region.size_decoder.fc1,
        ]
    )
    of_hidden = {id(parameter) for parameter in hidden.parameters() if parameter.ndim == 2}
    matrices = [parameter for parameter in parameters if id(parameter) in of_hidden]
    others = [parameter for parameter in parameters if id(parameter) not in of_hidden]
    return (
        torch.optim.AdamW(others, lr=0.0, betas=(0.9, 0.98), weight_decay=0.02),
        Muon(matrices, lr=0.0, weight_decay=0.02),
    )


def encoder_loss(trainee: Trainee, data: list[Shard], stage: Stage, steps: int) -> LossOfStep:
    """Crops of all scenes, those with many objects more often."""
    vision, head = trainee.model.vision, trainee.crop_head
    chances = [_chances(shard) for shard in data]

    def loss_of_step(step: int) -> dict[str, Tensor]:
        rng = _rng(stage, step)
        index = int(rng.integers(len(data)))
        chosen = rng.choice(len(chances[index]), stage.batch_size, replace=False, p=chances[index])
        crops, cells, objects, windows = turn_randomly(crop_batch(data[index], chosen), rng)
        predicted = head(vision.encode_crops(crops))
        return {"dense": dense_loss(predicted, DenseTargets(cells, objects, windows))}

    return loss_of_step


def _chances(shard: Shard) -> np.ndarray:
    """How likely each crop of a shard is drawn: in proportion to the objects that it shows."""
    shown = np.array([len(np.unique(cells[cells > 0])) for cells in shard.cells]) + EMPTY_CROP_WEIGHT
    return shown / shown.sum()


@dataclass(frozen=True)
class SceneRef:
    """A scene's place in the data."""

    shard: Shard
    index: int

    @property
    def objects(self) -> np.ndarray:
        return self.shard.objects[self.index, : self.shard.n_objects[self.index]]

    @property
    def cells(self) -> np.ndarray:
        """Which object each patch of the global crop shows, (P,)."""
        return self.shard.cells[self.shard.crops_of_scene(self.index).start].reshape(-1)


def detection_loss(trainee: Trainee, data: list[Shard], stage: Stage, steps: int) -> LossOfStep:
    """Prompts on features that the encoder computed once."""
    scenes = _scenes(data)
    features = _encode_once(trainee.model, data)
    batches = _SceneBatches(trainee, scenes)

    def loss_of_step(step: int) -> dict[str, Tensor]:
        rng = _rng(stage, step)
        chosen = rng.integers(len(scenes), size=stage.batch_size)
        embeddings = trainee.model.vision.proj_mlp(features[chosen].float())
        blur = max(LAST_BLUR, FIRST_BLUR * (1 - step / (0.6 * steps)))
        return batches.losses(embeddings, chosen, blur, rng)

    return loss_of_step


def joint_loss(trainee: Trainee, data: list[Shard], stage: Stage, steps: int) -> LossOfStep:
    """Prompts on images, through the whole model."""
    scenes = _scenes(data)
    batches = _SceneBatches(trainee, scenes)
    vision = trainee.model.vision

    def loss_of_step(step: int) -> dict[str, Tensor]:
        rng = _rng(stage, step)
        chosen = rng.integers(len(scenes), size=stage.batch_size)
        refs = [scenes[i] for i in chosen]
        slices = [ref.shard.crops_of_scene(ref.index) for ref in refs]
        crops = np.concatenate([ref.shard.crops[part] for ref, part in zip(refs, slices, strict=True)])
        features = vision.encode_crops(torch.from_numpy(crops)).split(
            [part.stop - part.start for part in slices]
        )
        embeddings = torch.stack(
            [
                vision.project(part, ref.shard.tiling(ref.index))
                for part, ref in zip(features, refs, strict=True)
            ]
        )
        return batches.losses(embeddings, chosen, LAST_BLUR, rng)

    return loss_of_step


class _SceneBatches:
    """Draws prompts for scenes and measures what the decoder makes of them."""

    def __init__(self, trainee: Trainee, scenes: list[SceneRef]) -> None:
        self._trainee = trainee
        self._scenes = scenes
        self._tokenizer = make_tokenizer(DEMO_CONFIG.text.vocab_size)

    def losses(
        self, embeddings: Tensor, chosen: np.ndarray, blur: float, rng: np.random.Generator
    ) -> dict[str, Tensor]:
        refs = [self._scenes[i] for i in chosen]
        packed: Packed = pack(
            [pack_scene(rng, scene_objects(ref.objects), self._tokenizer, DEMO_CONFIG) for ref in refs]
        )
        cells = torch.from_numpy(np.stack([ref.cells for ref in refs])).long()
        losses = detection_losses(self._trainee.model, embeddings, cells, packed, blur)
        grid = DEMO_CONFIG.vision.grid
        objects = np.zeros((len(refs), MAX_OBJECTS, 6), np.float32)
        for row, ref in zip(objects, refs, strict=True):
            row[: len(ref.objects)] = ref.objects
        whole = torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(len(refs), 4)
        targets = DenseTargets(cells.view(-1, grid, grid), torch.from_numpy(objects), whole, absolute=True)
        return losses | {"dense": dense_loss(self._trainee.embedding_head(embeddings), targets)}


LOSSES = {ENCODER: encoder_loss, DETECTION: detection_loss, JOINT: joint_loss, POLISH: joint_loss}


def _scenes(data: list[Shard]) -> list[SceneRef]:
    return [SceneRef(shard, index) for shard in data for index in range(len(shard.tilings))]


@torch.no_grad()
def _encode_once(model: Moondream2, data: list[Shard]) -> Tensor:
    """What the projection reads of every scene, (scenes, P, 2 C), in half precision to save memory."""
    encoded = []
    for shard in data:
        features = torch.cat(
            [model.vision.encode_crops(part) for part in torch.from_numpy(shard.crops).split(64)]
        )
        for index in range(len(shard.tilings)):
            own = features[shard.crops_of_scene(index)]
            encoded.append(model.vision.join(own, shard.tiling(index)).half())
    return torch.stack(encoded)


def _rng(stage: Stage, step: int) -> np.random.Generator:
    return np.random.default_rng((SEED, STAGES.index(stage), step))


def _schedule(step: int, steps: int) -> float:
    """Warm-up, then a cosine to 2 % of the full rate."""
    warm = min(1.0, (step + 1) / WARM_UP_STEPS)
    return warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))


def _save(path: Path, trainee: Trainee, optimizers: Sequence[torch.optim.Optimizer], step: int) -> None:
    partial = path.with_suffix(".partial")
    states = [optimizer.state_dict() for optimizer in optimizers]
    torch.save({"trainee": trainee.state_dict(), "optimizers": states, "step": step}, partial)
    partial.rename(path)


def _resume(path: Path, trainee: Trainee, optimizers: Sequence[torch.optim.Optimizer], steps: int) -> int:
    """Loads a stage's last checkpoint, if any, and gives the steps that it has behind it."""
    if not path.exists():
        return 0
    checkpoint = torch.load(path, weights_only=True)
    trainee.load_state_dict(checkpoint["trainee"])
    if checkpoint["step"] < steps:
        for optimizer, state in zip(optimizers, checkpoint["optimizers"], strict=True):
            optimizer.load_state_dict(state)
    return int(checkpoint["step"])


if __name__ == "__main__":
    typer.run(main)
