"""Measures the demo model on pictures that training never draws: `make evaluate`."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import track
from rich.table import Table

from training.evaluate_answers import AnswerScore, add_counts, evaluate_answers
from training.evaluate_shapes import evaluate as evaluate_shapes
from training.evaluate_shapes import false_alarms_of_other_things
from training.evaluate_things import ThingScore, evaluate_things, pictures_kept_aside
from training.icons import UNSEEN_SET, Drawings, IconsError, load_drawings, load_trained_drawings
from training.names import NAMES
from training.pictures import SCENE_PICTURES
from workflow_blocks.moondream2.prompt_tokens import SkillError
from workflow_blocks.moondream2.runtime import Runtime

# Training draws shapes from seeds below this.
FIRST_SEED = 1_000_000
# Pictures to count in: few kinds of objects, small enough for several.
COUNTING = replace(SCENE_PICTURES, few_kinds=1.0, max_items=7, max_size=0.35, empty=0.0)

Figures = dict[str, float]


def figures_of_shapes(runtime: Runtime, scenes: int) -> dict[str, Figures]:
    """Detection of shapes: for plain and natural wording, figures of each group of prompts."""
    seeds = range(FIRST_SEED, FIRST_SEED + scenes)
    rows: dict[str, Figures] = {}
    for natural in (False, True):
        wording = "natural" if natural else "plain"
        for name, score in evaluate_shapes(
            runtime, track(seeds, f"Shapes, {wording} prompts"), natural
        ).items():
            result = score.precision.compute()
            rows[f"shapes, {wording} prompts: {name}"] = {
                "mAP@50": result.map50, "mAP@50:95": result.map50_95, "false alarms": score.false_alarms,
            }  # fmt: skip
    others = false_alarms_of_other_things(runtime, track(seeds, "Shapes, prompts for other things"))
    rows["shapes: prompts for other things"] = {"false alarms": others}
    return rows


def figures_of_detection(style: str, score: ThingScore) -> dict[str, Figures]:
    rows: dict[str, Figures] = {}
    for size, metric in (("", score.all), (", 20 % and more", score.large), (", under 20 %", score.small)):
        result = metric.compute()
        rows[f"things, {style}{size}"] = {"mAP@50": result.map50, "mAP@50:95": result.map50_95}
    rows[f"things, {style}"]["false alarms"] = score.absent_names.value
    rows[f"things, {style}: near misses and unknown words"] = {"false alarms": score.hard_prompts.value}
    rows[f"points, {style}"] = {"recall": score.point_recall.value, "precision": score.point_precision.value}
    return rows


def figures_of_answers(style: str, score: AnswerScore) -> dict[str, Figures]:
    rows = {
        f"yes or no, {style}": {"right": score.yes_no.value, "calibration error": score.calibration_error},
        f"colour of a box, {style}": {"right": score.colour.value},
        f"name of a box, {style}": {"right": score.name.value},
        f"list of what is there, {style}": {"F1": score.listed.value},
        f"counts 1 to 5, {style}": {"right": score.count_accuracy},
    }
    for number, share in score.counts.items():
        rows[f"counts 1 to 5, {style}"][f"of {number}"] = share.value
    for length, share in score.captions.items():
        rows[f"{length} caption, every word, {style}"] = {"right": share.value}
    return rows


def draw_confusion(named: Counter[tuple[str, str]], path: Path) -> None:
    """Draws which names boxes are given, and writes the most frequent mistakes below."""
    matrix = np.zeros((len(NAMES), len(NAMES) + 1))
    for (true, given), count in named.items():
        matrix[NAMES.index(true), NAMES.index(given) if given in NAMES else len(NAMES)] += count
    matrix /= np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    figure = Figure(figsize=(14, 15.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    image = axes.imshow(matrix, cmap="magma_r", vmin=0, vmax=1)
    figure.colorbar(image, shrink=0.6, label="share of the boxes")
    axes.set_yticks(range(len(NAMES)), NAMES, fontsize=6)
    axes.set_xticks(range(len(NAMES) + 1), (*NAMES, "(other words)"), fontsize=6, rotation=90)
    axes.set_ylabel("what the box shows")
    mistakes = [(pair, count) for pair, count in named.most_common() if pair[0] != pair[1]][:12]
    listed = ", ".join(f"{true} as {given} ({count})" for (true, given), count in mistakes)
    axes.set_xlabel(f'answer to "what is this?"\nmost frequent mistakes: {listed}', wrap=True)
    figure.savefig(path, dpi=90)


def can_answer(runtime: Runtime) -> bool:
    """Whether a model was made for more than boxes."""
    try:
        runtime.check_question("what is this?")
    except SkillError:
        return False
    return True


def print_rows(rows: dict[str, Figures], title: str) -> None:
    table = Table("what", "figures", title=title)
    for name, figures in rows.items():
        table.add_row(name, "  ".join(f"{key} {_shown(key, value)}" for key, value in figures.items()))
    Console().print(table)


def _shown(key: str, value: float) -> str:
    return f"{value:.1%}" if key == "false alarms" else f"{value:.3f}"


def figures_of_style(
    runtime: Runtime, name: str, styles: Sequence[Drawings], pictures: int
) -> tuple[dict[str, Figures], Counter[tuple[str, str]]]:
    def kept_aside(what: str, **options: Any) -> Iterable[Any]:
        return track(pictures_kept_aside(styles, pictures, **options), f"{what}, {name}", total=pictures)

    rows = figures_of_detection(name, evaluate_things(runtime, kept_aside("Detection")))
    answers = evaluate_answers(runtime, kept_aside("Answers", group=1))
    add_counts(answers, runtime, kept_aside("Counts", options=COUNTING, group=2))
    return rows | figures_of_answers(name, answers), answers.named


def main(
    package: Annotated[Path, typer.Option(help="The model package.")] = Path("workflow_blocks/demo_model"),
    pictures: Annotated[int, typer.Option(help="How many pictures to draw for each task.")] = 300,
    output: Annotated[Path, typer.Option(help="Where the figures and pictures are written.")] = Path(
        "results/evaluation"
    ),
) -> None:
    """Prints the figures of every task, and draws the confusion between names."""
    runtime = Runtime.from_folder(package)
    output.mkdir(parents=True, exist_ok=True)
    rows = figures_of_shapes(runtime, pictures)
    if can_answer(runtime):
        try:
            groups = {
                "trained styles": load_trained_drawings(),
                "style never seen": [load_drawings(UNSEEN_SET)],
            }
        except IconsError as error:
            typer.secho(f"Error: {error}", err=True, fg="red")
            raise typer.Exit(1) from error
        for name, styles in groups.items():
            new, named = figures_of_style(runtime, name, styles, pictures)
            rows |= new
            draw_confusion(named, output / f"confusion_{name.replace(' ', '_')}.png")
    print_rows(rows, f"{package.name}: {pictures} unseen pictures for each task")
    (output / "figures.json").write_text(json.dumps(rows, indent=1) + "\n")
    typer.echo(f"Figures and pictures are in {output}.")


if __name__ == "__main__":
    typer.run(main)
