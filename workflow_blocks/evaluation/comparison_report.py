"""The tables of a comparison, and its file."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from workflow_blocks.datasets.atomic_files import write_atomically
from workflow_blocks.evaluation.box_agreement import MIN_IOU, Agreement, agreement_by_prompt, total
from workflow_blocks.evaluation.comparison import Comparison
from workflow_blocks.evaluation.measure import PROMPT_COUNTS, Measured

FILE = "comparison.json"
MEANING = (
    f"agree: same prompt, IoU at least {MIN_IOU}. missed: only Inference's class found it. "
    "added: only this plugin found it.\n"
    "time: for one image, with its encoding. (2.0x): twice as fast as Inference's class."
)
_NONE = "-"


def title(measured: Measured, is_plugin: bool) -> str:
    """How a comparison names a class and its dtype."""
    if not is_plugin:
        return f"Inference's class, {measured.dtype}"
    is_default = measured.dtype == measured.default_dtype
    return f"this plugin, {measured.dtype}" + (" (default here)" if is_default else "")


def boxes_table(comparison: Comparison) -> Table:
    """The boxes of each prompt, over all images, and where the two classes agree, in one dtype."""
    plugin = comparison.plugin[0]
    if comparison.inference is None:
        table = _table("Boxes", "prompt", "boxes")
        for index, prompt in enumerate(comparison.prompts):
            n_boxes = sum(box.prompt == index for boxes in plugin.found for box in boxes)
            table.add_row(escape(prompt), str(n_boxes))
        return table
    table = _table(
        f"Boxes in {plugin.dtype}",
        *("prompt", "Inference's class", "this plugin", "agree", "missed", "added", "mean IoU"),
    )
    agreements = _agreements(comparison, plugin)
    for prompt, agreement in zip(comparison.prompts, agreements, strict=True):
        table.add_row(escape(prompt), *_agreement_cells(agreement))
    table.add_section()
    table.add_row("all", *_agreement_cells(total(agreements)), style="bold")
    return table


def runtimes_table(comparison: Comparison) -> Table:
    """What each class found and used, a column for each."""
    inference = comparison.inference
    columns = ([inference] if inference else []) + comparison.plugin
    titles = [title(measured, measured is not inference) for measured in columns]
    table = _table("Summary", "", *(name.replace(", ", "\n").replace(" (", "\n(") for name in titles))

    def add_row(name: str, cells: Sequence[str], last: bool = False) -> None:
        table.add_row(name, *cells, end_section=last)

    add_row("boxes", [str(sum(map(len, measured.found))) for measured in columns], last=inference is None)
    if inference:
        totals = [total(_agreements(comparison, measured)) for measured in comparison.plugin]
        add_row("  agree", [_NONE, *(str(agreement.agree) for agreement in totals)])
        add_row("  missed", [_NONE, *(str(agreement.missed) for agreement in totals)])
        add_row("  added", [_NONE, *(str(agreement.added) for agreement in totals)])
        add_row("  mean IoU", [_NONE, *(_mean_iou(agreement) for agreement in totals)], last=True)
    add_row("confidence", [_confidences(measured) for measured in columns], last=True)
    for count in PROMPT_COUNTS:
        name = "time, 1 prompt" if count == 1 else f"time, {count} prompts"
        cells = [_speed(measured, inference, count) for measured in columns]
        add_row(name, cells, last=count == PROMPT_COUNTS[-1])
    add_row("loading", [f"{measured.load_seconds:.1f} s" for measured in columns])
    add_row("peak memory", [_gib(measured.memory) for measured in columns])
    if any(measured.gpu_memory is not None for measured in columns):
        add_row("peak GPU memory", [_gib(measured.gpu_memory) for measured in columns])
    add_row("package's Python", ["\n".join(map(escape, m.python_files)) or "none ran" for m in columns])
    return table


def write_comparison(comparison: Comparison, file: Path) -> None:
    """Writes all boxes and figures as JSON.

    Raises:
        OSError: the file cannot be written.
    """
    data: dict[str, Any] = {
        "package": str(comparison.package),
        "images": [path.name for path in comparison.images],
        "prompts": list(comparison.prompts),
        "inference": _as_json(comparison.inference, comparison) if comparison.inference else None,
        "why_not": comparison.why_not,
        "plugin": [_as_json(measured, comparison) for measured in comparison.plugin],
    }
    if comparison.inference:
        data["agreement"] = [
            {
                "dtype": measured.dtype,
                "agree": agreement.agree,
                "missed": agreement.missed,
                "added": agreement.added,
                "mean_iou": agreement.mean_iou,
            }
            for measured in comparison.plugin
            for agreement in [total(_agreements(comparison, measured))]
        ]
    write_atomically(file, f"{json.dumps(data, indent=1)}\n".encode())


def is_comparison(file: Path) -> bool:
    """Whether a file is one that `write_comparison` has written."""
    try:
        return {"package", "images", "prompts", "plugin"} <= json.loads(file.read_bytes()).keys()
    except (OSError, ValueError, AttributeError):
        return False


def _as_json(measured: Measured, comparison: Comparison) -> dict[str, Any]:
    found = [
        [{**box._asdict(), "prompt": comparison.prompts[box.prompt]} for box in boxes]
        for boxes in measured.found
    ]
    return {**asdict(measured), "found": found}


def _table(name: str, first: str, *others: str) -> Table:
    table = Table(first, title=name, title_justify="left", title_style="bold")
    for other in others:
        table.add_column(other, justify="right")
    return table


def _agreements(comparison: Comparison, plugin: Measured) -> list[Agreement]:
    assert comparison.inference is not None
    return agreement_by_prompt(comparison.inference.found, plugin.found, len(comparison.prompts))


def _agreement_cells(agreement: Agreement) -> list[str]:
    counts = (
        agreement.n_reference,
        agreement.n_other,
        agreement.agree,
        agreement.missed,
        agreement.added,
    )
    return [*map(str, counts), _mean_iou(agreement)]


def _mean_iou(agreement: Agreement) -> str:
    return _NONE if agreement.mean_iou is None else f"{agreement.mean_iou:.3f}"


def _confidences(measured: Measured) -> str:
    values = [box.confidence for boxes in measured.found for box in boxes]
    if not values:
        return _NONE
    low, high = f"{min(values):.2f}", f"{max(values):.2f}"
    return f"always {low}" if low == high else f"{low} to {high}"


def _speed(measured: Measured, inference: Measured | None, count: int) -> str:
    """Seconds for an image, and for this plugin how that compares with Inference's class."""
    seconds = measured.seconds[count]
    shown = f"{seconds:.3g} s"
    if inference is None or measured is inference:
        return shown
    return f"{shown} ({inference.seconds[count] / seconds:.1f}x)"


def _gib(n_bytes: int | None) -> str:
    return "not measured" if n_bytes is None else f"{n_bytes / 2**30:.2f} GiB"
