"""What many questions, and many choices, cost together rather than one by one, on images that are encoded."""

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
from workflow_blocks.moondream2.answers import Answer, TextSettings
from workflow_blocks.moondream2.choices import ChoiceScorer
from workflow_blocks.moondream2.decoding import Batcher, Request
from workflow_blocks.moondream2.memory import WorkingMemory
from workflow_blocks.moondream2.prompt_tokens import Prompts
from workflow_blocks.moondream2.rows import EncodedImage
from workflow_blocks.moondream2.runtime import Question, Runtime

N_QUESTIONS = 8
N_IMAGES = 8
TOKENS = 20
QUESTIONS = [f"What is thing number {number} in the picture?" for number in range(N_QUESTIONS)]
CHOICES = ["yes", "no", "red", "green", "a dog", "a cat", "one", "two"]


def measure_questions(runtime: Runtime, image: EncodedImage, rounds: int) -> dict[str, float]:
    """Seconds of one question and of `N_QUESTIONS`, with answers of `TOKENS` tokens."""
    settings = TextSettings(max_tokens=TOKENS)

    def ask(count: int) -> list[Answer]:
        answers = runtime.query([Question(image, text) for text in QUESTIONS[:count]], settings)
        assert all(len(answer.token_ids) == TOKENS for answer in answers)
        return answers

    runs: dict[str, Callable[[], object]] = {
        "one question": lambda: ask(1),
        f"{N_QUESTIONS} questions together": lambda: ask(N_QUESTIONS),
        f"{N_QUESTIONS} questions one by one": lambda: [ask(1) for _ in QUESTIONS],
    }
    side_by_side(runs, 1)  # the first round does not count
    return side_by_side(runs, rounds)


def measure_choices(runtime: Runtime, images: list[EncodedImage], rounds: int) -> dict[str, float]:
    """Seconds of scoring all `CHOICES` for a question about each image, together and one choice at a time."""
    questions = [Question(image, QUESTIONS[0]) for image in images]
    prompt = Prompts(runtime.model.config, runtime.tokenizer).query(QUESTIONS[0])
    scorer = ChoiceScorer(Batcher(runtime.model, WorkingMemory()), runtime.tokenizer)

    def together() -> None:
        runtime.score_choices(questions, [CHOICES] * len(questions))

    def one_by_one() -> None:
        # `score_choices` takes at least two; the scorer takes one, here in both spellings as there.
        for image in images:
            request = Request(image, prompt)
            for choice in CHOICES:
                scorer.log_probabilities([request] * 2, [choice, f" {choice}"])

    runs: dict[str, Callable[[], object]] = {
        f"{len(images)} images x {len(CHOICES)} choices together": together,
        "one by one": torch.inference_mode()(one_by_one),
    }
    side_by_side(runs, 1)
    return side_by_side(runs, rounds)


def main(
    rounds: Annotated[int, typer.Option(help="How often each is measured.")] = 5,
    folder: Annotated[Path, typer.Option(help="Where the results go.")] = FOLDER,
) -> None:
    """Prints a table, and writes skills.json."""
    with random_package(LARGE, torch.bfloat16) as package:
        runtime = load_runtime(package, DEVICE)
    images = runtime.encode_images([drawn_image(378, 378, seed) for seed in range(N_IMAGES)])
    results = {
        "questions": measure_questions(runtime, images[0], rounds),
        "choices": measure_choices(runtime, images, rounds),
    }
    for measured in results.values():
        first = next(iter(measured.values()))
        table = Table("", "s", "ratio to the first", title=f"{LARGE_NAME}, encoded images")
        for name, seconds in measured.items():
            table.add_row(name, f"{seconds:.3f}", f"{seconds / first:.2f}")
        show(table)
    dtype = str(runtime.placement[1]).removeprefix("torch.")
    publish("skills", {"machine": machine(large=True), "dtype": dtype, "seconds": results}, folder)


if __name__ == "__main__":
    typer.run(main)
