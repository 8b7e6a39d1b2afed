"""Trains the demo model: `make train`, or `python -m training.train --help`.

Three stages, each resumed from the last checkpoint when run again:

1. encoder: the vision encoder alone, on what every patch of a crop shows;
2. decoder: the text decoder and region heads, on what the encoder sees;
3. joint: everything together.

In the last stage the learning rate falls in a line to nothing: losses fall with it. `--scale` makes the
stages shorter, for less time. `--finish MINUTES` lets the rate fall faster, from the last checkpoint on, and
writes a package; the run itself stays as it is.
"""

import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import nn

from training import checkpoints
from training.batches import SEED, Batches, CropBatch, PictureBatch, draw_ahead
from training.checkpoints import Progress
from training.demo_config import DEMO_CONFIG
from training.evaluate_quickly import figures_of_crops, figures_of_pictures
from training.export import BUNDLED_HEADS, export_package, heads_beside, load_heads, save_heads
from training.folder import training_folder
from training.icons import UNSEEN_SET, Drawings, IconsError, load_drawings, load_trained_drawings
from training.run_log import FIGURES, RunLog
from training.tokenizer import make_tokenizer
from training.trainee import Trainee
from workflow_blocks.moondream2.checkpoint import load_model
from workflow_blocks.moondream2.config import Moondream2Config
from workflow_blocks.moondream2.layers import multiplies_bfloat16


@dataclass(frozen=True)
class Stage:
    """How long and how fast a stage learns; a batch counts crops in the first stage, then pictures.

    The learning rate falls to `last_rate` of itself over the last `fall` of the steps.
    """

    name: str
    steps: int
    batch_size: int
    learning_rate: float
    fall: float
    last_rate: float
    evaluate_every: int


ENCODER = Stage("encoder", 9000, 64, 2e-3, fall=0.25, last_rate=0.1, evaluate_every=500)
DECODER = Stage("decoder", 6000, 16, 1.2e-3, fall=0.0, last_rate=1.0, evaluate_every=1500)
JOINT = Stage("joint", 16000, 16, 7e-4, fall=1.0, last_rate=0.01, evaluate_every=1000)
STAGES = (ENCODER, DECODER, JOINT)

WARM_UP_STEPS = 200
# Muon's learning rate as a multiple of AdamW's.
MUON_FACTOR = 3.3
CHECKPOINT_EVERY = 100
LOG_EVERY = 20

# Targets start as wide bells around the true bin and narrow to a few bins: places first, precision later.
FIRST_BLUR, LAST_BLUR = 20.0, 3.0
BLUR_NARROWS = 0.6  # over this share of the decoder stage


@dataclass
class Run:
    """What a run works with."""

    folder: Path
    trainee: Trainee
    device: torch.device
    styles: list[Drawings]
    unseen: list[Drawings]
    threads: int  # 0 for as many as are quickest
    workers: int
    scale: float
    log: RunLog
    seed: int = SEED
    seconds: float = 0.0  # of training before this process

    def steps_of(self, stage: Stage) -> int:
        return max(2, round(stage.steps * self.scale))


def train(run: Run) -> None:
    """Runs what is left of every stage."""
    checkpoint = checkpoints.load(run.folder, run.device)
    first = STAGES[0].name
    if checkpoint is not None:
        progress = Progress(**checkpoint["progress"])
        run.trainee.load_state_dict(checkpoint["trainee"])
        run.log.rewind(progress.stage, progress.step)
        run.seconds, first = progress.seconds, progress.stage
    for stage in STAGES[[stage.name for stage in STAGES].index(first) :]:
        optimizers = optimizers_of(run.trainee, stage)
        step = 0
        if checkpoint is not None and checkpoint["progress"]["stage"] == stage.name:
            step = checkpoint["progress"]["step"]
            for optimizer, state in zip(optimizers, checkpoint["optimizers"], strict=True):
                optimizer.load_state_dict(state)
        checkpoint = None
        run_stage(run, stage, optimizers, step)
        checkpoints.keep_as(run.folder, f"{stage.name}.pt")


def optimizers_of(trainee: Trainee, stage: Stage) -> tuple[torch.optim.Optimizer, ...]:
    return trainee.make_optimizers(
        trainee.parameters_of(encoder=stage is not DECODER, decoder=stage is not ENCODER)
    )


def run_stage(run: Run, stage: Stage, optimizers: tuple[torch.optim.Optimizer, ...], first: int) -> None:
    """Takes the steps that are left of a stage, logs and keeps checkpoints."""
    use_threads(run, stage)
    steps, started, before = run.steps_of(stage), time.monotonic(), run.seconds
    evaluate_every = max(1, round(stage.evaluate_every * run.scale))
    sums: dict[str, float] = defaultdict(float)
    since, at = first, time.monotonic()
    for step, batch in enumerate(batches_of(run, stage, first, steps), first):
        losses = take_step(run, stage, optimizers, batch, step, rate_at(stage, step, steps))
        run.seconds = before + time.monotonic() - started
        done = step + 1
        for name, value in losses.items():
            sums[name] += value
        if done % LOG_EVERY == 0 or done == steps:
            means = {name: round(total / (done - since), 4) for name, total in sums.items()}
            entry = {"stage": stage.name, "step": done, "hours": round(run.seconds / 3600, 4)}
            speed = (done - since) / (time.monotonic() - at)
            run.log.write(entry | {"steps_per_second": round(speed, 3), "losses": means})
            sums.clear()
            since, at = done, time.monotonic()
        if done % CHECKPOINT_EVERY == 0 or done == steps:
            checkpoints.save(run.folder, run.trainee, optimizers, Progress(stage.name, done, run.seconds))
        if done % evaluate_every == 0 or done == steps:
            evaluate(run, stage, done)
            at = time.monotonic()


def use_threads(run: Run, stage: Stage) -> None:
    """Sets PyTorch's threads.

    In the first stage, drawing needs more than half a core. A thread that shares its core with it holds up
    the others: two threads took 1.8 times as long as one on two cores. In the last one they took 0.7 times.
    """
    cores = os.cpu_count() or 1
    quickest = max(1, cores - run.workers) if stage is ENCODER else cores
    torch.set_num_threads(run.threads or quickest)


def batches_of(run: Run, stage: Stage, first: int, last: int) -> Iterator[CropBatch | PictureBatch]:
    of_crops = stage is ENCODER
    batches = Batches(run.styles, STAGES.index(stage), stage.batch_size, of_crops, run.seed)
    return draw_ahead(batches, first, last, run.workers)


def take_step(
    run: Run,
    stage: Stage,
    optimizers: tuple[torch.optim.Optimizer, ...],
    batch: CropBatch | PictureBatch,
    step: int,
    rate: float,
) -> dict[str, float]:
    """Learns from one batch and gives its losses."""
    for optimizer, factor in zip(optimizers, (1.0, MUON_FACTOR), strict=True):
        for group in optimizer.param_groups:
            group["lr"] = rate * factor
    with torch.autocast(run.device.type, torch.bfloat16, enabled=multiplies_fast(run.device)):
        if isinstance(batch, CropBatch):
            losses = run.trainee.crop_losses(batch.to(run.device))
        else:
            blur = max(LAST_BLUR, FIRST_BLUR * (1 - step / (BLUR_NARROWS * run.steps_of(DECODER))))
            blur = blur if stage is DECODER else LAST_BLUR
            losses = run.trainee.picture_losses(batch.to(run.device), blur, encoder_learns=stage is JOINT)
    torch.stack(list(losses.values())).sum().backward()
    parameters = [p for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]]
    nn.utils.clip_grad_norm_(parameters, 1.0)
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad()
    return {name: float(value.detach()) for name, value in losses.items()}


def rate_at(stage: Stage, step: int, steps: int) -> float:
    """The learning rate: a warm-up, level, then falling in a line."""
    warm = min(1.0, (step + 1) / WARM_UP_STEPS)
    left = (steps - step) / max(stage.fall * steps, 1)
    falling = stage.last_rate + (1 - stage.last_rate) * min(1.0, left) if stage.fall else 1.0
    return stage.learning_rate * warm * falling


def evaluate(run: Run, stage: Stage, step: int) -> None:
    """Logs figures on pictures kept aside, and draws the log."""
    measure = figures_of_crops if stage is ENCODER else figures_of_pictures
    figures = {
        f"{name} ({style})": round(value, 4)
        for style, styles in (("trained styles", run.styles), ("style never seen", run.unseen))
        for name, value in measure(run.trainee, styles, run.scale).items()
    }
    hours = round(run.seconds / 3600, 4)
    run.log.write({"stage": stage.name, "step": step, "hours": hours, FIGURES: figures})
    run.log.draw()


def finish(run: Run, minutes: float) -> None:
    """From the last checkpoint on, lets the learning rate fall to nothing within some minutes of training."""
    checkpoint = checkpoints.load(run.folder, run.device)
    if checkpoint is None or checkpoint["progress"]["stage"] == ENCODER.name:
        raise typer.BadParameter("there is no checkpoint of the decoder yet; train on", param_hint="--finish")
    progress = Progress(**checkpoint["progress"])
    run.trainee.load_state_dict(checkpoint["trainee"])
    optimizers = optimizers_of(run.trainee, JOINT)
    if progress.stage == JOINT.name:
        for optimizer, state in zip(optimizers, checkpoint["optimizers"], strict=True):
            optimizer.load_state_dict(state)
    use_threads(run, JOINT)
    started, step = time.monotonic(), progress.step if progress.stage == JOINT.name else 0
    for batch in batches_of(run, JOINT, step, 10**9):
        done = (time.monotonic() - started) / (60 * minutes)
        if done >= 1:
            break
        take_step(run, JOINT, optimizers, batch, step, JOINT.learning_rate * max(1 - done, 0.01))
        step += 1
    typer.echo(f"finished after {step} steps of the joint stage")


def start_from(trainee: Trainee, package: Path, folder: Path) -> None:
    """Begins the joint stage with a package's weights, and the heads that training left beside it.

    Other packages get the heads of the bundled model: new ones would at first teach nothing right.
    """
    config = Moondream2Config.from_file(package / "config.json")
    if config.model_dump(exclude={"tokenizer"}) != DEMO_CONFIG.model_dump(exclude={"tokenizer"}):
        raise typer.BadParameter(f"{package} has other sizes than training makes", param_hint="--from")
    model = load_model(package, config, torch.device("cpu"), torch.float32)
    trainee.model.load_state_dict(model.state_dict())
    own = heads_beside(package)
    load_heads(trainee, own if own.exists() else BUNDLED_HEADS)
    checkpoints.save(folder, trainee, optimizers_of(trainee, JOINT), Progress(JOINT.name, 0, 0.0))


def multiplies_fast(device: torch.device) -> bool:
    """Whether products in bfloat16 save time; weights and sums stay in float32."""
    return device.type == "cuda" or (device.type == "cpu" and multiplies_bfloat16())


def choose_device(name: str) -> torch.device:
    if name != "auto":
        return torch.device(name)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def main(
    folder: Annotated[
        Path | None, typer.Option(help="Checkpoints and log; by default 'run' in TRAINING_FOLDER.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Where the package is written; by default 'package' in the folder.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, ... or auto.")] = "auto",
    threads: Annotated[int, typer.Option(help="Threads of PyTorch on the CPU; 0 for the quickest.")] = 0,
    workers: Annotated[int, typer.Option(help="Processes that draw pictures ahead.")] = 1,
    scale: Annotated[float, typer.Option(help="Stretches every stage; a small value tries the code.")] = 1.0,
    from_package: Annotated[
        Path | None,
        typer.Option("--from", help="Start from this package's weights, if there is no checkpoint."),
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Of the pictures; with --from, another one draws pictures that are new to it.")
    ] = SEED,
    finish_minutes: Annotated[
        float | None,
        typer.Option(
            "--finish", help="Finish from the last checkpoint in so many minutes; the run stays as it is."
        ),
    ] = None,
) -> None:
    """Trains the demo model, or goes on from its last checkpoint, and writes it as a package."""
    folder = folder or training_folder() / "run"
    try:
        styles, unseen = load_trained_drawings(), [load_drawings(UNSEEN_SET)]
    except IconsError as error:
        typer.secho(f"Error: {error}", err=True, fg="red")
        raise typer.Exit(1) from error
    torch.manual_seed(SEED)
    torch.set_float32_matmul_precision("high")
    folder.mkdir(parents=True, exist_ok=True)
    trainee = Trainee()
    if from_package is not None and not (folder / checkpoints.LATEST).exists():
        start_from(trainee, from_package, folder)
    target = choose_device(device)
    log = RunLog(folder, [stage.name for stage in STAGES])
    run = Run(folder, trainee.to(target), target, styles, unseen, threads, workers, scale, log, seed)
    work: Callable[[], None] = (
        (lambda: train(run)) if finish_minutes is None else (lambda: finish(run, finish_minutes))
    )
    work()
    output = output or folder / "package"
    export_package(run.trainee.model.cpu(), make_tokenizer(), output)
    save_heads(run.trainee, heads_beside(output))
    typer.echo(f"The model is in {output}; `python -m training.evaluate --package {output}` measures it.")


if __name__ == "__main__":
    typer.run(main)
