"""Summarizes the results of a run over files."""

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from workflow_blocks.running.folder import Run, RunResult

MAX_FAILURES_SHOWN = 10
FAILURES_FILE = "failures.jsonl"


def write_summary(run: Run, result: RunResult) -> None:
    """Writes a row for each image (`aggregated_results.csv`) and a line for each file that failed."""
    from inference_cli.lib.workflows.common import aggregate_batch_processing_results
    from inference_cli.lib.workflows.entities import OutputFileType

    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
        aggregate_batch_processing_results(str(run.output), OutputFileType.CSV)
    lines = [json.dumps({"file": name, "cause": reason}) for name, reason in result.failures.items()]
    (run.output / FAILURES_FILE).write_text("".join(f"{line}\n" for line in lines))


def print_summary(console: Console, run: Run, result: RunResult) -> None:
    """Prints which files failed and why, how many are done, and where the results are."""
    output, failures = escape(str(run.output)), result.failures
    for name, reason in list(failures.items())[:MAX_FAILURES_SHOWN]:
        console.print(f"[red]Failed: {escape(f'{name}: {reason}')}[/red]", soft_wrap=True)
    if len(failures) > MAX_FAILURES_SHOWN:
        rest = len(failures) - MAX_FAILURES_SHOWN
        console.print(f"[red]... and {rest} more, in {output}/{FAILURES_FILE}[/red]")
    before = f", {result.n_done_before} of them before" if result.n_done_before else ""
    console.print(
        f"[bold]{result.n_done} done{before}, {len(failures)} failed. Results in {output}/[/bold]\n"
        "  <file name>/              JSON and pictures; for a video, a table and videos\n"
        "  aggregated_results.csv    one row per image",
        soft_wrap=True,
    )


def counts_by_prompt(run: Run) -> Table | None:
    """How many boxes each prompt found in all images; None if the workflow has no output `counts`."""
    boxes: Counter[str] = Counter()
    images: Counter[str] = Counter()
    for _, outputs in _results(run):
        counts = outputs.get("counts")
        if isinstance(counts, dict):
            boxes.update(counts)
            images.update({prompt: int(count > 0) for prompt, count in counts.items()})
    if not boxes:
        return None
    table = Table("prompt", "boxes", "in images")
    for prompt, count in boxes.items():
        table.add_row(escape(prompt), str(count), str(images[prompt]))
    return table


def detections_by_image(run: Run) -> Table:
    """What each prompt found in each image, of a workflow with the outputs `predictions` and `counts`."""
    table = Table("image", "prompt", "count", "confidence")
    for column in table.columns[2:]:
        column.justify = "right"
    for name, outputs in _results(run):
        found = outputs["predictions"]["predictions"]
        for row, (prompt, count) in enumerate(outputs["counts"].items()):
            confidences = [f"{box['confidence']:.2f}" for box in found if box["class"] == prompt]
            table.add_row(
                escape(name) if row == 0 else "",
                escape(prompt),
                str(count),
                ", ".join(confidences) or "-",
                end_section=row == len(outputs["counts"]) - 1,
            )
    return table


def _results(run: Run) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The name of each image that was processed, and the workflow's outputs for it."""
    for name in (run.output / "progress.log").read_text().splitlines():
        file = run.output / name / "results.json"
        if file.is_file():
            yield name, json.loads(file.read_text())
