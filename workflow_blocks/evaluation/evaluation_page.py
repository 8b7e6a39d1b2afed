"""`report.html`: an evaluation as one file that needs nothing else."""

from collections.abc import Iterable, Sequence
from html import escape

from workflow_blocks.evaluation.evaluation import Evaluation
from workflow_blocks.evaluation.evaluation_charts import Series, legend, line_chart
from workflow_blocks.evaluation.evaluation_pictures import (
    DETECTION_COLOUR,
    LABEL_COLOUR,
    Mistake,
    picture,
    worst_false_alarms,
    worst_misses,
)
from workflow_blocks.evaluation.evaluation_table import note_on_thresholds

_MAX_LISTED = 200
_MAX_IN_MATRIX = 30

_STYLE = """
.evaluation { --text: #1c1917; --dim: #57534e; --line: #d6d3d1; --back: #fff; --shade: #f5f5f4;
  font: 15px/1.5 system-ui, sans-serif; color: var(--text); background: var(--back);
  max-width: 1180px; margin: 0 auto; padding: 1.5rem }
body { margin: 0 }
@media (prefers-color-scheme: dark) {
  .evaluation { --text: #f5f5f4; --dim: #a8a29e; --line: #44403c; --back: #1c1917; --shade: #292524 }
  body { background: #1c1917 }
}
.evaluation h1 { font-size: 1.4rem; margin: 0; overflow-wrap: anywhere }
.evaluation h2 { font-size: 1.1rem; margin: 2rem 0 .5rem }
.evaluation p { color: var(--dim); margin: .25rem 0 .75rem; max-width: 75ch }
.evaluation .figures { display: flex; flex-wrap: wrap; gap: 1rem; margin: 1rem 0 }
.evaluation .figures div { background: var(--shade); border-radius: 8px; padding: .6rem 1rem }
.evaluation .figures b { display: block; font-size: 1.4rem }
.evaluation .figures span { color: var(--dim) }
.evaluation .wide { overflow-x: auto }
.evaluation table { border-collapse: collapse; background: none }
.evaluation th, .evaluation td {
  padding: .3rem .7rem; text-align: right; border-bottom: 1px solid var(--line) }
.evaluation .text { text-align: left }
.evaluation .best { font-weight: 700 }
.evaluation .charts { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(280px, 1fr)) }
.evaluation .pictures { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(220px, 1fr)) }
.evaluation figure { margin: 0 }
.evaluation figcaption { color: var(--dim); font-size: .85rem; overflow-wrap: anywhere }
.evaluation img { max-width: 100%; border-radius: 6px }
.evaluation svg { width: 100%; max-width: 480px }
.evaluation svg text { fill: var(--dim); font-size: 11px }
.evaluation svg .grid { stroke: var(--line) }
.evaluation svg .diagonal { stroke: var(--dim); stroke-dasharray: 4 4 }
.evaluation svg polyline { fill: none; stroke-width: 2 }
.evaluation .legend { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: .2rem 1rem }
.evaluation .key { display: inline-block; width: .8em; height: .8em; border-radius: 2px; margin-right: .4em }
.evaluation .pair { white-space: nowrap; margin-left: .5em }
.evaluation li { overflow-wrap: anywhere }
"""


def page(evaluation: Evaluation) -> str:
    """The whole file."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_text(evaluation.title)}</title></head><body>{page_body(evaluation)}</body></html>\n"
    )


def page_body(evaluation: Evaluation) -> str:
    """The report as an element, for a page or a notebook."""
    sections = [
        _head(evaluation),
        _classes(evaluation),
        _wordings(evaluation),
        _curves(evaluation),
        _confusion(evaluation),
        _mistakes(
            evaluation, "Missed objects", "The largest labels without a detection.", worst_misses(evaluation)
        ),
        _mistakes(
            evaluation,
            "False alarms",
            "The most confident detections without a label. Some may be objects that nobody labelled.",
            worst_false_alarms(evaluation),
        ),
        _others(evaluation),
    ]
    return f'<div class="evaluation"><style>{_STYLE}</style>{"".join(sections)}</div>'


def _head(evaluation: Evaluation) -> str:
    metrics = evaluation.metrics
    n_labels = sum(one.n_labels for one in metrics.classes)
    figures = {
        "mAP@50": _share(metrics.map_50),
        "mAP@50:95": _share(metrics.map_50_95),
        "seconds per image": "-"
        if evaluation.seconds_per_image is None
        else f"{evaluation.seconds_per_image:.3g}",
        "images": f"{len(evaluation.images):,}",
        "labels": f"{n_labels:,}",
    }
    cells = "".join(f"<div><b>{value}</b><span>{name}</span></div>" for name, value in figures.items())
    return f'<h1>{_text(evaluation.title)}</h1><div class="figures">{cells}</div>'


def _classes(evaluation: Evaluation) -> str:
    of_threshold = ["threshold", "precision", "recall", "F1", "best threshold", "best F1"]
    heads = ["class", "labels", "AP@50", "AP@50:95", *of_threshold]
    rows = [
        [
            _text(one.name),
            f"{one.n_labels:,}",
            *map(_share, (one.ap_50, one.ap_50_95, one.threshold, one.precision, one.recall, one.f1)),
            *map(_share, (one.best_threshold, one.best_f1)),
        ]
        for one in evaluation.metrics.classes
    ]
    return (
        "<h2>Classes</h2><p>Precision, recall and F1 are those of detections with at least the threshold. A "
        "detection is right if it overlaps a label of its class by an IoU of at least 0.5. The best "
        f"threshold gives the highest F1 on these images.</p>{_note(evaluation)}{_table(heads, rows)}"
    )


def _note(evaluation: Evaluation) -> str:
    note = note_on_thresholds(evaluation)
    return f"<p><strong>{_text(note)}</strong></p>" if note else ""


def _wordings(evaluation: Evaluation) -> str:
    if not evaluation.wordings:
        return ""
    best = {
        name: max(one.best_f1 for one in evaluation.wordings if one.class_name == name)
        for name in {one.class_name for one in evaluation.wordings}
    }
    rows = [
        [
            _text(one.class_name),
            _text(" + ".join(one.prompts)),
            _share(one.ap_50),
            f'<span class="best">{_share(one.best_f1)}</span>'
            if one.best_f1 == best[one.class_name]
            else _share(one.best_f1),
            _share(one.best_threshold),
        ]
        for one in evaluation.wordings
    ]
    heads = ["class", "prompts", "AP@50", "best F1", "best threshold"]
    return (
        "<h2>Wordings</h2><p>Each prompt of a class alone, and all together. <code>prompts.json</code> has "
        f"the one with the best F1.</p>{_table(heads, rows, text_columns=2)}"
    )


def _curves(evaluation: Evaluation) -> str:
    classes = [one for one in evaluation.metrics.classes if one.n_labels]
    precision_recall, f1 = [], []
    for one in classes:
        points = list(zip(one.curves.recall.tolist(), one.curves.precision.tolist(), strict=True))
        precision_recall.append(Series(one.name, points))
        points = list(zip(one.curves.confidence.tolist(), one.curves.f1.tolist(), strict=True))
        f1.append(Series(one.name, points[::-1], (one.best_threshold, one.best_f1) if one.best_f1 else None))
    calibration = evaluation.metrics.calibration
    bins = [(one.confidence, one.precision) for one in calibration.bins]
    charts = {
        "Precision by recall": line_chart(precision_recall, "recall", "precision"),
        "F1 by confidence; a dot marks the best threshold": line_chart(f1, "confidence", "F1"),
        "Calibration: the share of right detections by confidence. On the dashed line, a score of 0.7 is "
        f"right in 70 % of cases. Mean distance: {_share(calibration.error)}": line_chart(
            [Series("all classes", bins)], "confidence", "share of right detections", diagonal=True
        ),
    }
    figures = "".join(
        f"<figure>{svg}<figcaption>{name}</figcaption></figure>" for name, svg in charts.items()
    )
    return f'<h2>Curves</h2>{legend([one.name for one in classes])}<div class="charts">{figures}</div>'


def _confusion(evaluation: Evaluation) -> str:
    names = [*evaluation.class_names, "none"]
    if len(names) > _MAX_IN_MATRIX:
        return "<h2>Confusion matrix</h2><p>It is large; see <code>metrics.json</code>.</p>"
    rows = [
        [_text(name), *(f"{count:,}" if count else "" for count in row)]
        for name, row in zip(names, evaluation.metrics.confusion.tolist(), strict=True)
    ]
    return (
        "<h2>Confusion matrix</h2><p>Rows are labels, columns are detections with at least the threshold. "
        "&ldquo;none&rdquo; is a missed label or a false alarm.</p>"
        f"{_table(['label', *map(_text, names)], rows)}"
    )


def _mistakes(evaluation: Evaluation, title: str, meaning: str, mistakes: Sequence[Mistake]) -> str:
    if not mistakes:
        return f"<h2>{title}</h2><p>None.</p>"
    figures = []
    for mistake in mistakes:
        source = picture(evaluation, mistake)
        name = _text(evaluation.class_names[mistake.class_id])
        file = _text(evaluation.images[mistake.image].name)
        score = "" if mistake.confidence is None else f" {mistake.confidence:.2f}"
        image = f'<img src="{source}" alt="{name} in {file}">' if source else ""
        figures.append(f"<figure>{image}<figcaption><b>{name}{score}</b> {file}</figcaption></figure>")
    keys = (
        f'<span class="pair"><span class="key" style="background:{LABEL_COLOUR}"></span>label</span> '
        f'<span class="pair"><span class="key" style="background:{DETECTION_COLOUR}"></span>detection</span>'
    )
    return f'<h2>{title}</h2><p>{meaning} {keys}</p><div class="pictures">{"".join(figures)}</div>'


def _others(evaluation: Evaluation) -> str:
    parts = []
    if evaluation.unlabelled:
        rows = [
            [_text(one.name), f"{one.n_boxes:,}", f"{one.n_images:,}", _share(one.max_confidence)]
            for one in evaluation.unlabelled
        ]
        parts.append(
            "<h2>Classes without labels</h2><p>They were searched for, but the dataset has no labels of "
            "them. They are in no other figure.</p>"
            f"{_table(['class', 'boxes', 'in images', 'highest confidence'], rows)}"
        )
    if evaluation.unsearched:
        rows = [[_text(name), f"{count:,}"] for name, count in evaluation.unsearched.items()]
        parts.append(
            "<h2>Classes without prompts</h2><p>The dataset has labels of them, but they were not searched "
            f"for. They are in no other figure.</p>{_table(['class', 'labels'], rows)}"
        )
    failed = [f"{path}: {reason}" for path, reason in evaluation.failures.items()]
    parts += [
        _list("Images that failed", failed),
        _list("Problems in the dataset", [str(problem) for problem in evaluation.problems]),
    ]
    return "".join(parts)


def _list(title: str, lines: Sequence[str]) -> str:
    if not lines:
        return ""
    items = "".join(f"<li>{_text(line)}</li>" for line in lines[:_MAX_LISTED])
    more = f"<p>And {len(lines) - _MAX_LISTED:,} more, in <code>metrics.json</code>.</p>"
    return f"<h2>{title} ({len(lines):,})</h2><ul>{items}</ul>{more if len(lines) > _MAX_LISTED else ''}"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], text_columns: int = 1) -> str:
    def cell(tag: str, index: int, content: str) -> str:
        kind = ' class="text"' if index < text_columns else ""
        return f"<{tag}{kind}>{content}</{tag}>"

    head = "".join(cell("th", index, name) for index, name in enumerate(heads))
    body = "".join(
        "<tr>" + "".join(cell("td", index, content) for index, content in enumerate(row)) + "</tr>"
        for row in rows
    )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _text(text: str) -> str:
    """Text for HTML; what is not UTF-8 in a file's name is shown as an escape."""
    return escape(text.encode("utf-8", "backslashreplace").decode(), quote=True)
