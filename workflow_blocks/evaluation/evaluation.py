"""Evaluates detections on a labelled dataset: figures of classes and of wordings, and the best prompts."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import supervision as sv

from workflow_blocks.datasets.atomic_files import write_atomically
from workflow_blocks.datasets.labelled_images import LabelledImages, Problem
from workflow_blocks.evaluation.detecting import (
    Detecting,
    Found,
    detect_in,
    detection_workflow,
    make_detector,
)
from workflow_blocks.evaluation.metrics import (
    ClassMetrics,
    Curves,
    Metrics,
    average_precisions,
    curves_of,
    measure,
)
from workflow_blocks.evaluation.searches import (
    PromptFile,
    PromptsOfClasses,
    View,
    parse_prompt_file,
    prompts_of_workflow,
    views_of,
)
from workflow_blocks.evaluation.weights import models_of, runtime_facts
from workflow_blocks.prompt_text import normalized_prompt
from workflow_blocks.running.errors import RunError

# Without more, these wordings of a class are as good as another.
_AS_GOOD = 1e-9


@dataclass(frozen=True)
class Wording:
    """Some prompts of a class, measured: COCO's AP at an IoU of 0.5, and the best F1 with its threshold."""

    class_name: str
    prompts: tuple[str, ...]
    ap_50: float | None
    best_f1: float
    best_threshold: float


@dataclass(frozen=True)
class UnlabelledClass:
    """A class that was searched for and has no labels: how many boxes were found, and in how many images."""

    name: str
    n_boxes: int
    n_images: int
    max_confidence: float | None


@dataclass(frozen=True)
class Evaluation:
    """What was measured on a dataset.

    Attributes:
        title: which model or workflow, on which dataset.
        images: the files of the images that were evaluated.
        labels: of each image; class ids index the classes of `metrics`.
        found: of each image, of the same classes.
        metrics: of the classes that were searched for and have labels.
        wordings: of the classes with several prompts; of each, first all prompts together.
        unlabelled: classes that were searched for and have no labels.
        unsearched: classes that have labels and were not searched for, with the number of labels.
        problems: what was left out of the dataset's files.
        failures: why images could not be processed, by file.
        seconds_per_image: of decoding and detection.
        thresholds: of classes, as they were given; the other classes were measured at their best thresholds.
        prompts: classes with their prompts; None if only the workflow knows them.
    """

    title: str
    images: list[Path]
    labels: list[sv.Detections]
    found: list[sv.Detections]
    metrics: Metrics
    wordings: list[Wording]
    unlabelled: list[UnlabelledClass]
    unsearched: dict[str, int]
    problems: list[Problem]
    failures: dict[Path, str]
    seconds_per_image: float
    thresholds: dict[str, float]
    prompts: PromptsOfClasses | None

    @property
    def class_names(self) -> list[str]:
        return [one.name for one in self.metrics.classes]

    @property
    def is_at_best_thresholds(self) -> bool:
        """Whether the figures of some class are those of a threshold that was chosen on the same images."""
        return any(one.n_labels and one.name not in self.thresholds for one in self.metrics.classes)

    def chosen(self) -> dict[str, Any] | None:
        """`prompts` and `confidence` as the detection block takes them: the best wording of each class.

        Of two wordings that are as good, the one with fewer prompts is taken. Classes without labels keep
        their prompts, and the thresholds that were given. A class with labels of which nothing was found gets
        the threshold 1: with 0, all its false alarms would be kept. None if the prompts are not known.
        """
        if self.prompts is None:
            return None
        prompts = dict(self.prompts)
        thresholds = {name: self.thresholds[name] for name in prompts if name in self.thresholds}
        thresholds |= {one.name: _threshold(one) for one in self.metrics.classes if one.n_labels}
        for name in self.class_names:
            of_class = [one for one in self.wordings if one.class_name == name]
            if of_class:
                best = max(one.best_f1 for one in of_class)
                good = [one for one in of_class if one.best_f1 >= best - _AS_GOOD]
                wording = min(good, key=lambda one: len(one.prompts))
                prompts[name], thresholds[name] = wording.prompts, _threshold(wording)
        return {
            "prompts": {name: own[0] if len(own) == 1 else list(own) for name, own in prompts.items()},
            "confidence": {name: _rounded_down(value) for name, value in thresholds.items()},
        }

    def __repr__(self) -> str:
        from workflow_blocks.evaluation.evaluation_table import summary

        return summary(self)

    def _repr_html_(self) -> str:
        from workflow_blocks.evaluation.evaluation_page import page_body

        return page_body(self)


def evaluate_prompts(
    dataset: LabelledImages,
    prompts: PromptFile | None,
    model: str,
    output: Path,
    title: str,
    again: bool = False,
    track: Callable[[Sequence[int]], Any] = lambda indices: indices,
) -> Evaluation:
    """Evaluates this plugin's detection block.

    Args:
        dataset: images with labels.
        prompts: classes with their prompts, and thresholds for precision, recall and F1; by default the class
            names are the prompts, and the best thresholds are taken.
        model: the block's `model_version`.
        output: where detections are kept; see `detect_in`.
        title: of the report.
        again: see `detect_in`.
        track: see `detect_in`.

    Raises:
        RunError: see `detect_in`.
    """
    names = dataset.class_names
    classes = (prompts or parse_prompt_file(names, "the dataset's class names as prompts")).prompts
    views = views_of(classes)
    definition = detection_workflow(views, model)
    detecting = detect_in(
        [image.path for image in dataset.images],
        {
            "dataset": dataset.source,
            "definition": definition,
            "views": [[view.class_name, *view.prompts] for view in views],
            "runtime": runtime_facts([model]),
        },
        output,
        lambda: make_detector(definition, {}, joins_outputs=True),
        again,
        track,
    )
    own = {str(index): name for index, name in enumerate(classes)}
    evaluation = _evaluation(dataset, detecting, own, title, prompts.thresholds if prompts else None, classes)
    wordings = _wordings(dataset, detecting, views, evaluation)
    return Evaluation(**(evaluation.__dict__ | {"wordings": wordings}))


def evaluate_workflow(
    dataset: LabelledImages,
    definition: dict[str, Any],
    parameters: Mapping[str, Any],
    output: Path,
    title: str,
    output_name: str | None = None,
    again: bool = False,
    track: Callable[[Sequence[int]], Any] = lambda indices: indices,
    thresholds: dict[str, float] | None = None,
) -> Evaluation:
    """Evaluates any workflow with an output of detections; their class names are those of the dataset.

    The arguments are those of `evaluate_prompts`, `make_detector` and `detect_in`. Detections that the
    workflow drops by a threshold of its own are not in the curves.

    If the workflow has a parameter `prompts` and finds no other classes, these are the classes that were
    searched for; else all classes of the dataset are. `thresholds` are by default those that the parameter
    `confidence` gives.
    """
    settings = {
        "dataset": dataset.source,
        "definition": definition,
        "parameters": dict(parameters),
        "output_name": output_name,
        "runtime": runtime_facts(models_of(definition, parameters)),
    }
    detecting = detect_in(
        [image.path for image in dataset.images],
        settings,
        output,
        lambda: make_detector(definition, parameters, output_name),
        again,
        track,
    )
    names = {normalized_prompt(name) for found in detecting.found.values() for name in found.names}
    searched = prompts_of_workflow(definition, parameters)
    if searched and not names <= searched.prompts.keys():
        searched = None  # some other step finds or renames classes
    if thresholds is None and searched and "confidence" in parameters:
        thresholds = searched.thresholds
    classes = searched.prompts if searched else None
    by_name = {name: name for name in [*(classes or dataset.class_names), *sorted(names)]}
    # The workflow may have dropped what is below.
    lowest = searched.thresholds if searched else None
    return _evaluation(dataset, detecting, by_name, title, thresholds, classes, lowest)


def _evaluation(
    dataset: LabelledImages,
    detecting: Detecting,
    class_of: Mapping[str, str],
    title: str,
    thresholds: dict[str, float] | None,
    prompts: PromptsOfClasses | None,
    lowest: dict[str, float] | None = None,
) -> Evaluation:
    """The figures of detections whose names `class_of` maps to classes."""
    if not detecting.found:
        reasons = sorted(set(detecting.failures.values()))
        raise RunError(f"no image could be processed: {'; '.join(reasons[:3])}")
    indices = sorted(detecting.found)
    n_labels = np.bincount(
        np.concatenate([dataset.images[index].class_ids for index in indices]).astype(int),
        minlength=len(dataset.class_names),
    )
    searched = list(dict.fromkeys(class_of.values()))
    labelled = [
        name
        for class_id, name in enumerate(dataset.class_names)
        if name in searched and (n_labels[class_id] or prompts is None)
    ]
    places = {name: index for index, name in enumerate(labelled)}
    labels = [_labels_of(dataset, index, places) for index in indices]
    found = [_found_of(detecting.found[index], class_of, places) for index in indices]
    seconds = [detecting.found[index].seconds for index in indices]
    return Evaluation(
        title=title,
        images=[dataset.images[index].path for index in indices],
        labels=labels,
        found=found,
        metrics=measure(labelled, labels, found, thresholds, lowest),
        wordings=[],
        unlabelled=[
            _unlabelled(name, [detecting.found[index] for index in indices], class_of)
            for name in searched
            if name not in places
        ],
        unsearched={
            name: int(n_labels[class_id])
            for class_id, name in enumerate(dataset.class_names)
            if name not in searched and n_labels[class_id]
        },
        problems=list(dataset.problems),
        failures={dataset.images[index].path: reason for index, reason in detecting.failures.items()},
        seconds_per_image=float(np.mean(seconds)),
        thresholds=dict(thresholds or {}),
        prompts=prompts,
    )


def _wordings(
    dataset: LabelledImages, detecting: Detecting, views: list[View], evaluation: Evaluation
) -> list[Wording]:
    """Classes with several prompts: all of them together, and each alone."""
    n_alone: dict[str, int] = {}
    for view in views:
        n_alone[view.class_name] = n_alone.get(view.class_name, 0) + 1
    wordings = []
    for class_id, name in enumerate(evaluation.class_names):
        for index, view in enumerate(views):
            if view.class_name == name and n_alone[name] > 1:
                found = [
                    _found_of(detecting.found[image], {str(index): name}, {name: class_id})
                    for image in sorted(detecting.found)
                ]
                labels = [image[image.class_id == class_id] for image in evaluation.labels]
                curves: Curves = curves_of(class_id, labels, found)
                aps = average_precisions(labels, found)[0]
                threshold, f1 = curves.best()
                wordings.append(Wording(name, view.prompts, aps.get(class_id, (None,))[0], f1, threshold))
    return wordings


def _labels_of(dataset: LabelledImages, index: int, places: Mapping[str, int]) -> sv.Detections:
    image = dataset.images[index]
    class_ids = np.array([places.get(name, -1) for name in dataset.class_names] or [-1])[image.class_ids]
    kept = class_ids >= 0
    return _detections(
        image.boxes[kept], class_ids[kept], None, {"iscrowd": image.is_crowd[kept].astype(int)}
    )


def _found_of(found: Found, class_of: Mapping[str, str], places: Mapping[str, int]) -> sv.Detections:
    class_ids = [
        places.get(class_of.get(name, class_of.get(normalized_prompt(name), "")), -1) for name in found.names
    ]
    kept = np.array(class_ids, np.int64) >= 0
    return _detections(found.boxes[kept], np.array(class_ids, np.int64)[kept], found.confidence[kept], {})


def _detections(
    boxes: npt.NDArray[np.float64],
    class_ids: npt.NDArray[np.int64],
    confidence: npt.NDArray[np.float64] | None,
    data: dict[str, Any],
) -> sv.Detections:
    return sv.Detections(
        xyxy=boxes.reshape(-1, 4), class_id=class_ids.astype(int), confidence=confidence, data=data
    )


def _unlabelled(name: str, found: Sequence[Found], class_of: Mapping[str, str]) -> UnlabelledClass:
    scores = [
        [
            float(score)
            for score, own in zip(image.confidence, image.names, strict=True)
            if class_of.get(own, class_of.get(normalized_prompt(own))) == name
        ]
        for image in found
    ]
    together = [score for own in scores for score in own]
    return UnlabelledClass(name, len(together), sum(map(bool, scores)), max(together, default=None))


def _threshold(one: Wording | ClassMetrics) -> float:
    return one.best_threshold if one.best_f1 else 1.0


def _rounded_down(threshold: float) -> float:
    """With six decimals; rounded down, so that no detection of this confidence is lost."""
    return int(threshold * 1_000_000) / 1_000_000


def as_json(evaluation: Evaluation) -> dict[str, Any]:
    """The figures, as `metrics.json` holds them."""
    metrics = evaluation.metrics
    return {
        "map_50": metrics.map_50,
        "map_50_95": metrics.map_50_95,
        "seconds_per_image": evaluation.seconds_per_image,
        "images": len(evaluation.images),
        "classes": {
            one.name: {
                "precision": one.precision,
                "recall": one.recall,
                "f1": one.f1,
                "threshold": one.threshold,
                "best_threshold": one.best_threshold,
                "best_f1": one.best_f1,
                "ap_50": one.ap_50,
                "ap_50_95": one.ap_50_95,
                "labels": one.n_labels,
                "detections": one.n_detections,
            }
            for one in metrics.classes
        },
        "wordings": [
            {
                "class": one.class_name,
                "prompts": list(one.prompts),
                "ap_50": one.ap_50,
                "best_f1": one.best_f1,
                "best_threshold": one.best_threshold,
            }
            for one in evaluation.wordings
        ],
        "confusion_matrix": {"classes": [*evaluation.class_names, None], "rows": metrics.confusion.tolist()},
        "calibration": {
            "error": metrics.calibration.error,
            "bins": [vars(one) for one in metrics.calibration.bins],
        },
        "classes_without_labels": {
            one.name: {"boxes": one.n_boxes, "images": one.n_images, "max_confidence": one.max_confidence}
            for one in evaluation.unlabelled
        },
        "classes_without_prompts": evaluation.unsearched,
        "problems": [str(problem) for problem in evaluation.problems],
        "failures": {str(path): reason for path, reason in evaluation.failures.items()},
    }


def write_results(evaluation: Evaluation, output: Path) -> None:
    """Writes `report.html`, `metrics.json` and, if the prompts are known, `prompts.json`.

    Raises:
        RunError: they cannot be written.
    """
    from workflow_blocks.evaluation.evaluation_page import page

    documents = {"metrics.json": as_json(evaluation), "prompts.json": evaluation.chosen()}
    texts = {name: f"{json.dumps(document, indent=2)}\n" for name, document in documents.items() if document}
    try:
        (output / "prompts.json").unlink(missing_ok=True)  # of an earlier evaluation in this folder
        for name, text in (texts | {"report.html": page(evaluation)}).items():
            write_atomically(output / name, text.encode())
    except OSError as error:
        raise RunError(f"{output} cannot be written: {error.strerror}") from error
