"""Runs a workflow over a folder of images and videos, with results like those of Inference's command line.

What this adds to that command line:

- Tables and datasets have the images' own names.
- One engine serves all images, so that a sink which appends to a log writes one file, not one for each image.
- Unreadable files are skipped and listed, and set the exit code.
- Unknown parameters are refused.
- Results of different parameters are never mixed.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from workflow_blocks.inference_host.engine import make_engine, make_model_manager
from workflow_blocks.running.errors import FileError, RunError
from workflow_blocks.running.files import VIDEO_SUFFIXES
from workflow_blocks.running.parameters import BATCH_INPUT, ParameterError, image_input

# A workflow that has a parameter of this name gets the name of each file in it.
IMAGE_NAME_PARAMETER = "image_name"


@dataclass(frozen=True)
class Run:
    """A workflow, its parameters, and the folder of its results."""

    definition: dict[str, Any]
    parameters: dict[str, Any]
    output: Path


@dataclass(frozen=True)
class RunResult:
    """How many files have results, how many of them from an earlier run, and why the others failed."""

    n_done: int
    n_done_before: int
    failures: dict[str, str]


def run_over_files(run: Run, files: Sequence[Path], again: bool = False) -> RunResult:
    """Runs a workflow over the files that have no results yet.

    Results lie in `<output>/<file name>/`.

    Args:
        run: what to run.
        files: images and videos; their names must differ.
        again: whether to process all files again, rather than to continue an earlier run.

    Raises:
        RunError: the workflow cannot run with these parameters, or the folder holds results of another run.
    """
    console = Console(highlight=False)
    run.output.mkdir(parents=True, exist_ok=True)
    _claim_output(run, again)
    with console.status("Starting Inference (its imports take a while)..."):
        process = _make_processor(run)
    from inference_cli.lib.workflows.common import denote_image_processed, open_progress_log

    log, done_before = open_progress_log(str(run.output))
    todo = [path for path in files if path.name not in done_before]
    failures: dict[str, str] = {}
    with log, _progress_bar(console) as progress:
        for path in progress.track(todo, description="Processing"):
            try:
                process(path)
                denote_image_processed(log, str(path))
            except FileError as failure:
                failures[path.name] = str(failure)
    return RunResult(len(files) - len(failures), len(files) - len(todo), failures)


def _progress_bar(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console)


def _claim_output(run: Run, again: bool) -> None:
    """Notes what the results come from, so that results of two definitions or parameters are never mixed."""
    claim = run.output / "run.json"
    this = json.dumps({"parameters": run.parameters, "definition": run.definition}, indent=2) + "\n"
    if again:
        (run.output / "progress.log").unlink(missing_ok=True)
    elif claim.exists() and claim.read_text() != this:
        raise RunError(
            f"{run.output} holds results of another workflow or other parameters (see {claim}); "
            "give another --output, or --again to replace them"
        )
    claim.write_text(this)


def _make_processor(run: Run) -> Callable[[Path], None]:
    """Compiles the workflow; the result processes one file and raises `FileError` if it cannot."""
    from inference.core.workflows.errors import WorkflowError

    try:
        engine = make_engine(run.definition, make_model_manager())
        image_parameter = image_input(run.definition)
    except (WorkflowError, ParameterError) as error:
        raise RunError(f"the workflow cannot be run: {error}") from error

    def process(path: Path) -> None:
        if path.suffix.lower() in VIDEO_SUFFIXES:
            _process_video(run, path, image_parameter)
        else:
            _process_image(run, engine, path, image_parameter)

    return process


def _process_image(run: Run, engine: Any, path: Path, image_parameter: str) -> None:
    import cv2
    from inference.core.workflows.errors import WorkflowError
    from inference_cli.lib.workflows.common import dump_image_processing_results

    image = cv2.imread(str(path))
    if image is None:
        raise FileError("not an image that OpenCV can read")
    inputs = _parameters_of(run, path) | {image_parameter: image}
    try:
        (outputs,) = engine.run(runtime_parameters=inputs, serialize_results=True)
    except WorkflowError as error:
        raise FileError(str(error.inner_error or error)) from error
    dump_image_processing_results(outputs, str(path), str(run.output), save_image_outputs=True)
    _check_sinks(run.definition, outputs)


def _check_sinks(definition: Mapping[str, Any], outputs: Mapping[str, Any]) -> None:
    """Raises `FileError` if a workflow output with a sink's `error_status` is true."""
    selectors = {entry.get("selector"): entry["name"] for entry in definition["outputs"]}
    for selector, name in selectors.items():
        step, _, output = str(selector).rpartition(".")
        if output == "error_status" and outputs.get(name) is True:
            message = outputs.get(
                selectors.get(f"{step}.message", ""), "the workflow has no output for the reason"
            )
            raise FileError(f"{name}: {message}")


def _parameters_of(run: Run, path: Path) -> dict[str, Any]:
    """A file's own parameters: its value of a batch input, and its name if the workflow takes one."""
    parameters = dict(run.parameters)
    for entry in run.definition["inputs"]:
        name = entry["name"]
        if entry["type"] == BATCH_INPUT:
            if path.name not in parameters.get(name, {}):
                raise FileError(f"`{name}` has no value for it")
            parameters[name] = [parameters[name][path.name]]
        elif name == IMAGE_NAME_PARAMETER:
            parameters.setdefault(name, path.name)
    return parameters


def _process_video(run: Run, path: Path, image_parameter: str) -> None:
    from inference_cli.lib.workflows.entities import OutputFileType
    from inference_cli.lib.workflows.video_adapter import process_video_with_workflow

    parameters = _parameters_of(run, path)
    try:
        details = process_video_with_workflow(
            input_video_path=str(path),
            output_directory=str(run.output / path.name),
            output_file_type=OutputFileType.CSV,
            workflow_specification=run.definition,
            workflow_parameters=parameters,
            image_input_name=image_parameter,
        )
    except Exception as error:  # OpenCV, Inference and supervision raise many types for an unreadable video
        raise FileError(str(error)) from error
    if details.processing_errors:
        raise FileError(str(details.processing_errors[0]))
    if details.structured_results_file is None:
        raise FileError("not a video that OpenCV can read: it has no frame")
