"""What a run over files prints while it runs and at its end."""

import json
import os
from collections import Counter
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from workflow_blocks.inference_host.engine import quiet

MAX_FAILURES_SHOWN = 10
FAILURES = "failures.jsonl"


def progress_bar(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console)


def report(console: Console, output: Path, n_done: int, n_before: int, failures: Mapping[str, str]) -> None:
    from inference_cli.lib.workflows.common import aggregate_batch_processing_results
    from inference_cli.lib.workflows.entities import OutputFileType

    with quiet(), Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
        aggregate_batch_processing_results(str(output), OutputFileType.CSV)
    _write_failures(output, failures)
    _print_counts(console, output)
    for name, reason in list(failures.items())[:MAX_FAILURES_SHOWN]:
        console.print(f"[red]Failed: {escape(f'{name}: {reason}')}[/red]", soft_wrap=True)
    if len(failures) > MAX_FAILURES_SHOWN:
        rest = len(failures) - MAX_FAILURES_SHOWN
        console.print(f"[red]... and {rest} more, in {escape(str(output / FAILURES))}[/red]")
    earlier = f", {n_before} of them before" if n_before else ""
    console.print(
        f"[bold]{n_done} done{earlier}, {len(failures)} failed. Results in {escape(str(output))}/[/bold]\n"
        "  <file name>/              JSON and pictures; of a video a table and videos\n"
        "  aggregated_results.csv    a row for each image",
        soft_wrap=True,
    )


def _write_failures(output: Path, failures: Mapping[str, str]) -> None:
    lines = [json.dumps({"file": name, "cause": reason}) for name, reason in failures.items()]
    (output / FAILURES).write_text("".join(f"{line}\n" for line in lines))


def _print_counts(console: Console, output: Path) -> None:
    """What each prompt found in all images, where the workflow says so."""
    boxes: Counter[str] = Counter()
    images: Counter[str] = Counter()
    for name in (output / "progress.log").read_text().splitlines():
        result = output / name / "results.json"
        counts = json.loads(result.read_text()).get("counts") if result.is_file() else None
        if isinstance(counts, dict):
            boxes.update(counts)
            images.update({prompt: int(count > 0) for prompt, count in counts.items()})
    if not boxes:
        return
    table = Table("prompt", "boxes", "in images")
    for prompt, count in boxes.items():
        table.add_row(escape(prompt), str(count), str(images[prompt]))
    console.print(table)
