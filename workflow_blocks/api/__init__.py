"""What the commands `run`, `evaluate` and `run label_a_dataset` do, as one call each from Python.

Importing this module imports neither torch nor Inference; the functions do. Like the commands, they
set `OFFLINE_MODE=True` unless the environment has another value, and register this plugin: call one of them
before your program imports `inference`.

`progress` is True for a progress bar, False for none, or a function that wraps a sequence, such as
`tqdm.tqdm`.
Results show themselves in a notebook, and as text when they are printed.
"""

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from workflow_blocks.api.errors import ArgumentError, naming

if TYPE_CHECKING:
    from workflow_blocks.api.results import FolderResult, LabelledFolder
    from workflow_blocks.evaluation.evaluation import Evaluation
    from workflow_blocks.evaluation.searches import PromptFile

__all__ = ["ArgumentError", "evaluate", "label_folder", "run_folder"]

PathName = str | PathLike[str]
# A list of class names that are their own prompts, a dictionary of class name to prompt or prompts, or what
# `prompts.json` holds: {"prompts": ..., "confidence": ...}.
Classes = Sequence[str] | Mapping[str, Any]
Track = Callable[[Sequence[Any]], Iterable[Any]]
DatasetFormat = Literal["coco", "yolo", "pascal_voc"]

_SPLIT = {"train": 0.8, "valid": 0.1, "test": 0.1}


def run_folder(
    workflow: PathName | Mapping[str, Any],
    images: PathName | Sequence[PathName],
    output: PathName,
    parameters: Mapping[str, Any] | None = None,
    *,
    again: bool = False,
    progress: bool | Track = True,
) -> "FolderResult":
    """Runs a workflow over images and videos, as `workflow-blocks run` does.

    Files that fail are listed in the result, and the others go on. A second call continues where the first
    one stopped.

    Args:
        workflow: the name of a bundled definition, a definition's file, or a definition.
        images: a folder, a file, or a list of files.
        output: the folder of the results: a folder for each file, and `aggregated_results.csv`.
        parameters: of the workflow, by name.
        again: whether to remove the results of earlier calls first.
        progress: a bar, none, or a function that wraps the files.

    Raises:
        ArgumentError: an argument cannot be used; the message names it.
        SettingsError: an environment variable of this plugin is invalid.
    """
    from workflow_blocks.api.results import FolderResult
    from workflow_blocks.running.folder import Run

    definition = _definition(workflow)
    folder = _path("output", output)
    run = Run(definition, _parameters(parameters, definition, folder), folder)
    return FolderResult(run, *_run(run, images, again, progress))


def evaluate(
    dataset: PathName,
    prompts: Classes | None,
    output: PathName,
    *,
    model: str = "moondream2-demo",
    workflow: PathName | Mapping[str, Any] | None = None,
    parameters: Mapping[str, Any] | None = None,
    predictions: str | None = None,
    split: str = "valid",
    format: DatasetFormat | None = None,
    again: bool = False,
    progress: bool | Track = True,
) -> "Evaluation":
    """Measures prompts, or a whole workflow, on a labelled dataset, as `workflow-blocks evaluate` does.

    Writes `report.html`, `metrics.json` and `prompts.json`. A second call continues where the first one
    stopped.

    Args:
        dataset: the folder of a dataset with boxes.
        prompts: classes with their prompts, and thresholds if `confidence` is there; None takes the class
            names of the dataset as prompts. None with a `workflow`: its prompts are in `parameters`.
        output: the folder of the results.
        model: the detection block's `model_version`.
        workflow: evaluate this workflow instead: a bundled name, a file, or a definition.
        parameters: of that workflow, by name.
        predictions: the workflow's output with the detections; by default it is found by its kind.
        split: such as `train`, `valid` or `test`.
        format: of the dataset; by default by its files.
        again: whether to forget the results of earlier calls.
        progress: a bar, none, or a function that wraps the numbers of the images.

    Returns:
        The figures; `chosen()` gives the best prompts and thresholds, as `label_folder` takes them. It gives
        None for a workflow without a parameter `prompts`, and then there is no `prompts.json`.

    Raises:
        ArgumentError: an argument cannot be used; the message names it.
        SettingsError: an environment variable of this plugin is invalid.
    """
    folder, place = _path("dataset", dataset), _path("output", output)
    for name, text in {"model": model, "split": split}.items():
        if not isinstance(text, str) or not text:
            raise ArgumentError(f"`{name}` is {text!r}; give text")
    given = None if prompts is None else _classes("prompts", prompts)
    for name, value in {"parameters": parameters, "predictions": predictions}.items():
        if workflow is None and value is not None:
            raise ArgumentError(f"`{name}` belongs to a `workflow`; give one, or leave out `{name}`")
    if workflow is not None and given is not None:
        raise ArgumentError("`prompts` and `workflow` exclude each other; give the prompts in `parameters`")
    definition = None if workflow is None else _definition(workflow)
    values = {} if definition is None else _parameters(parameters, definition, place)
    _use_local_settings()
    from workflow_blocks.datasets.labelled import read_labelled
    from workflow_blocks.evaluation.evaluation import evaluate_prompts, evaluate_workflow, write_results
    from workflow_blocks.running.settings import check_settings

    with naming("dataset"):
        images = read_labelled(folder, split, format)
    check_settings()
    where = f"{folder.resolve().name}, {split}"
    with naming("output"), _tracking(progress, "Detecting") as track:
        if definition is None:
            title = f"{model} on {where}"
            result = evaluate_prompts(images, given, model, place, title, again, track)
        else:
            title = f"{_name(workflow)} on {where}"
            result = evaluate_workflow(images, definition, values, place, title, predictions, again, track)
        write_results(result, place)
    return result


def label_folder(
    images: PathName | Sequence[PathName],
    classes: Classes,
    output: PathName,
    format: DatasetFormat = "yolo",
    *,
    confidence: float | Mapping[str, float] | None = None,
    model: str = "moondream2-demo",
    split: str | Mapping[str, float] | None = None,
    again: bool = False,
    progress: bool | Track = True,
) -> "LabelledFolder":
    """Labels images with prompts, as `workflow-blocks run label_a_dataset` does.

    Args:
        images: a folder, a file, or a list of files.
        classes: names that are their own prompts, or a dictionary of class to prompt or prompts. A dictionary
            with `prompts` and `confidence`, as `Evaluation.chosen()` gives it, has the thresholds too.
        output: the folder of the results. The dataset is in its folder `dataset`.
        format: of the dataset.
        confidence: boxes below are left out: a number from 0 to 1, or one for each class. By default those of
            `classes`, else 0.
        model: the detection block's `model_version`.
        split: one split's name, or shares of splits; by default 80 % train, 10 % valid and 10 % test.
        again: whether to remove the results of earlier calls first.
        progress: a bar, none, or a function that wraps the files.

    Raises:
        ArgumentError: an argument cannot be used; the message names it.
        SettingsError: an environment variable of this plugin is invalid.
    """
    from workflow_blocks.api.results import LabelledFolder
    from workflow_blocks.datasets.formats import FORMATS
    from workflow_blocks.running.definitions import read_definition
    from workflow_blocks.running.folder import Run
    from workflow_blocks.running.parameters import with_directories_in

    if format not in FORMATS:
        raise ArgumentError(f"`format` is {format!r}; give {', '.join(FORMATS)}")
    folder = _path("output", output)
    parsed = _classes("classes", classes)
    thresholds: object = {name: parsed.thresholds.get(name, 0.0) for name in parsed.prompts}
    if confidence is not None:
        _check_confidence(confidence)
        thresholds = dict(confidence) if isinstance(confidence, Mapping) else confidence
    if split is not None and not isinstance(split, (str, Mapping)):
        raise ArgumentError(f"`split` is {split!r}; give the name of a split, or a dictionary of shares")
    definition = read_definition("label_a_dataset")
    for step in definition["steps"]:
        if "format" in step:
            step["format"] = format
    parameters = {
        "prompts": {name: list(own) for name, own in parsed.prompts.items()},
        "confidence": thresholds,
        "model": model,
        "split": _SPLIT if split is None else dict(split) if isinstance(split, Mapping) else split,
    }
    run = Run(definition, with_directories_in(folder, parameters, definition), folder)
    # The parameters that are no arguments of the same name.
    arguments = {"prompts": "classes", "target_directory": "output"}
    return LabelledFolder(run, *_run(run, images, again, progress, arguments))


def _run(
    run: Any,
    images: PathName | Sequence[PathName],
    again: bool,
    progress: bool | Track,
    arguments_of_parameters: Mapping[str, str] | None = None,
) -> Any:
    """What `run_over_files` returns, and the files of the folder that are no images."""
    from workflow_blocks.running.files import skipped_files
    from workflow_blocks.running.folder import run_over_files
    from workflow_blocks.running.report import write_summary

    files = _files(images)
    skipped = skipped_files(Path(images)) if isinstance(images, (str, PathLike)) else {}
    _use_local_settings()
    with naming("output", arguments_of_parameters), _tracking(progress, "Processing") as track:
        result = run_over_files(run, files, again, track)
        write_summary(run, result)
    return result, skipped


def _use_local_settings() -> None:
    """Settings for Inference in this process, and no logs but warnings unless the program set up logging."""
    from workflow_blocks.inference_host.engine import use_local_settings

    logging.basicConfig(level=logging.WARNING)  # before Inference sets it up to show more
    use_local_settings()


def _path(argument: str, value: object) -> Path:
    if not isinstance(value, (str, PathLike)) or not str(value) or "\0" in str(value):
        raise ArgumentError(f"`{argument}` is {value!r}; give the path of a folder")
    return Path(value)


def _name(workflow: object) -> str:
    return Path(workflow).stem if isinstance(workflow, (str, PathLike)) else "workflow"


def _definition(workflow: object) -> dict[str, Any]:
    from workflow_blocks.running.definitions import read_definition

    if isinstance(workflow, Mapping):
        return dict(workflow)
    if not isinstance(workflow, (str, PathLike)) or not str(workflow):
        raise ArgumentError(f"`workflow` is {workflow!r}; give a name, a file, or a definition")
    with naming("workflow"):
        return read_definition(str(workflow))


def _files(images: object) -> list[Path]:
    from workflow_blocks.running.files import find_files

    if isinstance(images, (str, PathLike)):
        with naming("images"):
            return find_files(_path("images", images))
    if not isinstance(images, Sequence) or not images:
        raise ArgumentError(f"`images` is {images!r}; give a folder, a file, or a list of files")
    with naming("images"):
        return [file for entry in images for file in find_files(_path("images", entry))]


def _parameters(given: object, definition: Mapping[str, Any], output: Path) -> dict[str, Any]:
    from workflow_blocks.running.parameters import parameter_inputs, with_directories_in

    if given is not None and not isinstance(given, Mapping):
        raise ArgumentError(f"`parameters` is {given!r}; give a dictionary")
    known = parameter_inputs(definition)
    for name in given or {}:
        if name not in known:
            raise ArgumentError(
                f"`parameters`: the workflow has no parameter {name!r}; it has {', '.join(known) or 'none'}"
            )
        _check_json(name, (given or {})[name])
    return with_directories_in(output, given or {}, definition)


def _check_json(parameter: str, value: object) -> None:
    try:
        json.dumps(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise ArgumentError(
            f"`parameters`: `{parameter}` is {value!r:.200}; give text, numbers, booleans, None, lists and "
            "dictionaries of these"
        ) from error


def _classes(argument: str, value: object) -> "PromptFile":
    from workflow_blocks.evaluation.searches import MAX_PROMPTS, parse_prompt_file

    if not isinstance(value, (list, tuple, Mapping)):
        raise ArgumentError(
            f"`{argument}` is {value!r}; give a list of names, or a dictionary of class to prompt or prompts"
        )
    document = _as_json(value)
    with naming(argument):
        parsed = parse_prompt_file(document, f"`{argument}`")
    n_prompts = len({prompt for own in parsed.prompts.values() for prompt in own})
    if argument == "classes" and max(n_prompts, len(parsed.prompts)) > MAX_PROMPTS:
        raise ArgumentError(f"`classes` has {n_prompts} prompts; at most {MAX_PROMPTS} are possible")
    return parsed


def _as_json(value: object) -> object:
    """Mappings as dictionaries, and tuples as lists."""
    if isinstance(value, Mapping):
        return {name: _as_json(own) for name, own in value.items()}
    return [_as_json(own) for own in value] if isinstance(value, (list, tuple)) else value


def _check_confidence(value: object) -> None:
    for one in value.values() if isinstance(value, Mapping) else [value]:
        if isinstance(one, bool) or not isinstance(one, (int, float)) or not 0 <= one <= 1:
            raise ArgumentError(f"`confidence` is {value!r}; give numbers from 0 to 1")


@contextmanager
def _tracking(progress: bool | Track, description: str) -> Iterator[Track]:
    from rich.console import Console

    from workflow_blocks.running.folder import progress_bar

    if callable(progress):
        yield progress
    elif progress is True:
        with progress_bar(Console(highlight=False)) as bar:
            yield partial(bar.track, description=description)
    elif progress is False:
        yield iter
    else:
        raise ArgumentError(f"`progress` is {progress!r}; give True, False, or a function such as tqdm.tqdm")
