"""Summarizes the results of a run over files."""

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from workflow_blocks.blocks.common.csv_text import with_line_feeds
from workflow_blocks.datasets.atomic_files import write_atomically
from workflow_blocks.running.errors import RunError
from workflow_blocks.running.files import shown
from workflow_blocks.running.folder import Run, RunResult
from workflow_blocks.running.output import FAILURES_FILE, TABLE_FILE
from workflow_blocks.running.sinks import is_true, sink_outputs

MAX_NAMES_SHOWN = 10
_RESULTS_FILE = "results.json"


def write_summary(run: Run, result: RunResult) -> None:
    """Writes a row for each image (`aggregated_results.csv`) and a line for each file that failed.

    Raises:
        RunError: they cannot be written.
    """
    rows = []
    for record in result.records:
        outputs = _outputs_in(run.output / record.results)
        if outputs is not None:
            file = Path(record.file)
            rows.append(outputs | {"image": shown(Path(file.name)), "input_file": shown(file)})
    columns = dict.fromkeys(column for row in rows for column in row)
    table = io.StringIO()
    writer = csv.DictWriter(table, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({column: _cell(value) for column, value in row.items()} for row in rows)
    failures = [
        json.dumps({"file": shown(Path(path.name)), "cause": reason})
        for path, reason in result.failures.items()
    ]
    _write(run.output / TABLE_FILE, table.getvalue())
    _write(run.output / FAILURES_FILE, "".join(f"{line}\n" for line in failures))


def print_summary(console: Console, run: Run, result: RunResult, skipped: Mapping[Path, str]) -> None:
    """Prints which files were skipped or failed and why, how many are done, and where the results are."""
    output = escape(str(run.output))
    for note in (*_notes_on_sinks(run, result), *_notes_on_commas(run, result)):
        console.print(f"[yellow]{escape(note)}[/yellow]", soft_wrap=True)
    for reason in dict.fromkeys(skipped.values()):
        names = [shown(Path(path.name)) for path in skipped if skipped[path] == reason]
        more = f" and {len(names) - MAX_NAMES_SHOWN} more" if len(names) > MAX_NAMES_SHOWN else ""
        names_shown = escape(", ".join(names[:MAX_NAMES_SHOWN]))
        console.print(f"Skipped {len(names)} ({reason}): {names_shown}{more}", soft_wrap=True)
    for path, reason in list(result.failures.items())[:MAX_NAMES_SHOWN]:
        problem = escape(_encodable(f"{shown(Path(path.name))}: {reason}"))
        console.print(f"[red]Failed: {problem}[/red]", soft_wrap=True)
    if len(result.failures) > MAX_NAMES_SHOWN:
        rest = len(result.failures) - MAX_NAMES_SHOWN
        console.print(f"[red]... and {rest} more, in {output}/{FAILURES_FILE}[/red]")
    before = f", {result.n_done_before} of them before" if result.n_done_before else ""
    console.print(
        f"[bold]{len(result.results)} done{before}, {len(result.failures)} failed. "
        f"Results in {output}/[/bold]\n"
        "  <file name>/              JSON and pictures; for a video, a table and videos\n"
        f"  {TABLE_FILE}    one row per image",
        soft_wrap=True,
    )


def count_boxes(result: RunResult) -> dict[str, tuple[int, int]]:
    """How many boxes of each class all images have, and in how many images; by the outputs `counts`."""
    boxes: Counter[str] = Counter()
    images: Counter[str] = Counter()
    for _, outputs in outputs_of(result):
        counts = _counts_in(outputs)
        boxes.update(counts)
        images.update({name: int(count > 0) for name, count in counts.items()})
    return {name: (count, images[name]) for name, count in boxes.items()}


def counts_by_class(result: RunResult) -> Table | None:
    """The same as a table; None if the workflow has no output `counts`."""
    counts = count_boxes(result)
    if not counts:
        return None
    table = Table("class", "boxes", "in images")
    for name, (boxes, images) in counts.items():
        table.add_row(escape(_encodable(name)), str(boxes), str(images))
    return table


def detections_by_image(result: RunResult) -> Table:
    """The boxes of each class in each image, of a workflow with the outputs `predictions` and `counts`."""
    table = Table("image", "class", "count", "confidence")
    for column in table.columns[2:]:
        column.justify = "right"
    for path, outputs in outputs_of(result):
        found = outputs["predictions"]["predictions"]
        for row, (name, count) in enumerate(outputs["counts"].items()):
            confidences = [f"{box['confidence']:.2f}" for box in found if box["class"] == name]
            table.add_row(
                escape(shown(Path(path.name))) if row == 0 else "",
                escape(_encodable(name)),
                str(count),
                ", ".join(confidences) or "-",
                end_section=row == len(outputs["counts"]) - 1,
            )
    return table


def _notes_on_sinks(run: Run, result: RunResult) -> Iterator[str]:
    """What sinks did not send or write because of their cooldown."""
    for name, message in sink_outputs(run.definition, "throttling_status").items():
        throttled = [outputs for _, outputs in outputs_of(result) if is_true(outputs.get(name))]
        if throttled:
            reason = throttled[0].get(message) or "the sink's cooldown applies"
            yield (
                f"{name} in {len(throttled)} of {len(result.results)}: {reason}. "
                "A cooldown of 0 seconds leaves out none."
            )


def _notes_on_commas(run: Run, result: RunResult) -> Iterator[str]:
    """Hints at words that contain a comma and, as far as the workflow counts, found nothing."""
    found: Counter[str] = Counter()
    for _, outputs in outputs_of(result):
        found.update(_counts_in(outputs))
    for name, value in run.parameters.items():
        for text in _texts(value):
            if name.endswith("prompts") and "," in text and not found[text.strip()]:
                several = " ".join(f'"{part.strip()}"' for part in text.split(",") if part.strip())
                yield f"{text!r} is one prompt. For several prompts write --{name} {several}"


def _texts(value: object) -> list[str]:
    """The prompts in a parameter: a text, a list, or a dictionary of texts and lists."""
    items = value.values() if isinstance(value, dict) else [value]
    texts = [text for item in items for text in (item if isinstance(item, list) else [item])]
    return [text for text in texts if isinstance(text, str)]


def outputs_of(result: RunResult) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Each image that has results, and the workflow's outputs for it."""
    for path, folder in result.results.items():
        outputs = _outputs_in(folder)
        if outputs is not None:
            yield path, outputs


def _counts_in(outputs: Mapping[str, Any]) -> dict[str, int]:
    """The numbers of boxes by class; none if an output of this name holds something else."""
    counts = outputs.get("counts")
    if not isinstance(counts, dict) or any(type(count) is not int for count in counts.values()):
        return {}
    return counts


def _outputs_in(folder: Path) -> dict[str, Any] | None:
    """The workflow's outputs for an image; None for a video."""
    file = folder / _RESULTS_FILE
    return json.loads(file.read_bytes()) if file.is_file() else None


def _cell(value: object) -> object:
    return json.dumps(value) if isinstance(value, (list, dict)) else with_line_feeds(value)


def _encodable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _write(path: Path, text: str) -> None:
    try:
        write_atomically(path, _encodable(text).encode())
    except OSError as error:
        raise RunError(f"{path} cannot be written: {error.strerror}; run the same command again") from error
