"""What questions about many boxes cost, and many questions about the image, against one question.

The image is encoded before. Answers have the same number of tokens in every case.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.table import Table

from benchmarks.draw import FOLDER, publish
from benchmarks.measure import drawn_image, machine, show, side_by_side
from benchmarks.packages import DEVICE, LARGE, LARGE_NAME, random_package
from workflow_blocks.inference_host.loading import load_runtime
from workflow_blocks.moondream2.answers import TextSettings
from workflow_blocks.moondream2.rows import EncodedImage
from workflow_blocks.moondream2.runtime import Question, Runtime

N_BOXES = 10
ABOUT_BOXES = ["What colour is it?", "Is it new?"]
ABOUT_IMAGE = [f"What is thing number {number} in the picture?" for number in range(8)]
BOXES = [(0.05 + 0.09 * number, 0.1, 0.13 + 0.09 * number, 0.6) for number in range(N_BOXES)]
YES_OR_NO = ["yes", "no"]


def answer_runs(runtime: Runtime, image: EncodedImage, tokens: int) -> dict[str, Callable[[], object]]:
    """What is measured, by name; the first is what the others are compared with."""
    settings = TextSettings(max_tokens=tokens)
    of_boxes = [Question(image, text, [box]) for box in BOXES for text in ABOUT_BOXES]
    of_image = [Question(image, text) for text in ABOUT_IMAGE]

    def ask(questions: list[Question]) -> None:
        answers = runtime.query(questions, settings)
        assert len(answers) == len(questions)

    return {
        "one question": lambda: ask(of_image[:1]),
        f"{len(of_image)} questions": lambda: ask(of_image),
        "one question about one box": lambda: ask(of_boxes[:1]),
        f"{N_BOXES} boxes x {len(ABOUT_BOXES)} questions": lambda: ask(of_boxes),
    }


def choice_runs(runtime: Runtime, image: EncodedImage) -> dict[str, Callable[[], object]]:
    """The same with yes and no scored instead of written answers."""
    of_boxes = [Question(image, text, [box]) for box in BOXES for text in ABOUT_BOXES]

    def score(questions: list[Question]) -> None:
        runtime.score_choices(questions, [YES_OR_NO] * len(questions))

    return {
        "yes or no, one question": lambda: score([Question(image, ABOUT_IMAGE[0])]),
        f"yes or no, {N_BOXES} boxes x {len(ABOUT_BOXES)} questions": lambda: score(of_boxes),
    }


def main(
    rounds: Annotated[int, typer.Option(help="How often each is measured.")] = 5,
    tokens: Annotated[int, typer.Option(help="The most tokens of an answer.")] = 5,
    package: Annotated[
        Path | None,
        typer.Option(
            help="The model package to measure; by default random weights of a quarter of the width."
        ),
    ] = None,
    folder: Annotated[Path, typer.Option(help="Where the results go.")] = FOLDER,
) -> None:
    """Prints a table; with random weights, writes answers.json."""
    if package is not None:
        _measure(load_runtime(package, DEVICE), str(package), rounds, tokens)
        return
    with random_package(LARGE, torch.bfloat16) as large:
        runtime = load_runtime(large, DEVICE)
    results = _measure(runtime, LARGE_NAME, rounds, tokens)
    dtype = str(runtime.placement[1]).removeprefix("torch.")
    about = {"machine": machine(large=True), "dtype": dtype, "tokens": tokens}
    publish("answers", {**about, "seconds": results}, folder)


def _measure(runtime: Runtime, name: str, rounds: int, tokens: int) -> dict[str, dict[str, float]]:
    (image,) = runtime.encode_images([drawn_image(378, 378)])
    results = {}
    for kind, runs in (
        ("answers", answer_runs(runtime, image, tokens)),
        ("choices", choice_runs(runtime, image)),
    ):
        side_by_side(runs, 1)  # the first round does not count
        results[kind] = side_by_side(runs, rounds)
        first = next(iter(results[kind].values()))
        table = Table("", "s", "ratio to the first", title=f"{name}, an encoded image")
        for run, seconds in results[kind].items():
            table.add_row(run, f"{seconds:.3f}", f"{seconds / first:.2f}")
        show(table)
    return results


if __name__ == "__main__":
    typer.run(main)
