"""The tables of an evaluation in a terminal."""

import io
from collections.abc import Iterator

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from workflow_blocks.evaluation.evaluation import Evaluation


def tables(evaluation: Evaluation) -> Iterator[Table]:
    """The classes; then, if there are any, wordings, and classes that could not be compared."""
    metrics = evaluation.metrics
    heads = (
        "labels",
        "AP@50",
        "AP@\n50:95",
        "threshold",
        "precision",
        "recall",
        "F1",
        "best\nthreshold",
        "best\nF1",
    )
    classes = _table("Classes", "class", *heads)
    for one in metrics.classes:
        shares = (one.ap_50, one.ap_50_95, one.threshold, one.precision, one.recall, one.f1)
        classes.add_row(
            _text(one.name), str(one.n_labels), *map(_share, (*shares, one.best_threshold, one.best_f1))
        )
    classes.add_section()
    n_labels = sum(one.n_labels for one in metrics.classes)
    classes.add_row("mean", str(n_labels), _share(metrics.map_50), _share(metrics.map_50_95), style="bold")
    yield classes
    if evaluation.wordings:
        wordings = _table("Wordings", "class", "AP@50", "best F1", "best threshold", second="prompts")
        for wording in evaluation.wordings:
            figures = map(_share, (wording.ap_50, wording.best_f1, wording.best_threshold))
            wordings.add_row(_text(wording.class_name), _text(" + ".join(wording.prompts)), *figures)
        yield wordings
    if evaluation.unlabelled:
        unlabelled = _table("Searched for, but without labels", "class", "boxes", "in images")
        for other in evaluation.unlabelled:
            unlabelled.add_row(_text(other.name), str(other.n_boxes), str(other.n_images))
        yield unlabelled
    if evaluation.unsearched:
        unsearched = _table("Labelled, but not searched for", "class", "labels")
        for name, count in evaluation.unsearched.items():
            unsearched.add_row(_text(name), str(count))
        yield unsearched


def note_on_thresholds(evaluation: Evaluation) -> str:
    """What a reader must know about precision, recall and F1; empty if their thresholds were given."""
    if not evaluation.is_at_best_thresholds:
        return ""
    classes = "for classes without a given threshold" if evaluation.thresholds else "without given thresholds"
    note = (
        f"Precision, recall and F1 {classes} are those at the best thresholds, which were chosen on these "
        "same images. On other images they are usually lower"
    )
    other = ": evaluate another split with --prompts prompts.json." if evaluation.prompts else "."
    return note + other


def summary(evaluation: Evaluation) -> str:
    """The tables as text, as wide as the terminal."""
    console = Console(file=io.StringIO(), highlight=False, emoji=False)
    with console.capture() as captured:
        console.print(_text(evaluation.title), style="bold")
        for table in tables(evaluation):
            console.print(table)
        n_failed = f", {len(evaluation.failures)} failed" if evaluation.failures else ""
        if note := note_on_thresholds(evaluation):
            console.print(note, soft_wrap=True)
        console.print(
            f"{len(evaluation.images)} images{n_failed}, {evaluation.seconds_per_image:.3g} s per image",
            soft_wrap=True,
        )
    return captured.get().rstrip()


def _table(title: str, first: str, *others: str, second: str | None = None) -> Table:
    # Without padding and lines between columns, ten of them fit a terminal of 80.
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
        padding=0,
        min_width=len(title),  # otherwise rich folds the title
    )
    for words in (first, second):
        if words:
            table.add_column(words, overflow="fold")
    for other in others:
        table.add_column(other, justify="right")
    return table


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _text(text: str) -> str:
    return escape(text.encode("utf-8", "backslashreplace").decode())
