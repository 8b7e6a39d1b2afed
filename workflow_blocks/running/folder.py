"""A workflow over a folder of images and videos, with the files that Inference's own command line leaves.

What that command line lacks, and this has: the images' own names in tables and datasets; one log file where a
sink appends to one (it makes an engine an image); an exit code and a plain word for what cannot be read;
unknown parameters refused; results of different parameters never mixed.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from workflow_blocks.inference_host.engine import make_engine, make_model_manager, quiet
from workflow_blocks.running.errors import FileError, RunError
from workflow_blocks.running.files import VIDEO_SUFFIXES
from workflow_blocks.running.parameters import ParameterError, image_input
from workflow_blocks.running.report import progress_bar, report


@dataclass(frozen=True)
class Run:
    """A workflow, its parameters, and the folder of its results."""

    definition: dict[str, Any]
    parameters: dict[str, Any]
    output: Path


def run_over_files(run: Run, files: Sequence[Path], again: bool = False) -> bool:
    """Runs a workflow over files that it has not been run over before, and prints what came out.

    Results lie in `<output>/<file name>/`, and of all images in `<output>/aggregated_results.csv`.

    Args:
        run: what to run.
        files: images and videos; their names must differ.
        again: whether to start anew rather than to go on.

    Returns:
        Whether every file was worked on.

    Raises:
        RunError: the workflow cannot run with these parameters, or the folder holds results of another run.
    """
    console = Console(highlight=False)
    run.output.mkdir(parents=True, exist_ok=True)
    _claim_output(run, again)
    with console.status("Starting Inference (its imports take a while)..."), quiet():
        work = _make_worker(run)
    from inference_cli.lib.workflows.common import denote_image_processed, open_progress_log

    log, done_before = open_progress_log(str(run.output))
    todo = [path for path in files if path.name not in done_before]
    failures: dict[str, str] = {}
    with log, progress_bar(console) as progress:
        for path in progress.track(todo, description="Processing"):
            try:
                work(path)
                denote_image_processed(log, str(path))
            except FileError as failure:
                failures[path.name] = str(failure)
    report(console, run.output, len(files) - len(failures), len(files) - len(todo), failures)
    return not failures


def _claim_output(run: Run, again: bool) -> None:
    """Results of different definitions or parameters would be told apart by nobody."""
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


def _make_worker(run: Run) -> Callable[[Path], None]:
    """What works on one file and raises `FileError` for one that it cannot work on."""
    from inference.core.workflows.errors import WorkflowError

    try:
        engine = make_engine(run.definition, make_model_manager())
        image_name = image_input(run.definition)
    except (WorkflowError, ParameterError) as error:
        raise RunError(f"the workflow cannot be run: {error}") from error

    def work(path: Path) -> None:
        if path.suffix.lower() in VIDEO_SUFFIXES:
            _run_over_video(run, path, image_name)
        else:
            _run_over_image(run, engine, path, image_name)

    return work


def _run_over_image(run: Run, engine: Any, path: Path, image_name: str) -> None:
    import cv2
    from inference.core.workflows.errors import WorkflowError
    from inference_cli.lib.workflows.common import dump_image_processing_results

    image = cv2.imread(str(path))
    if image is None:
        raise FileError("not an image that OpenCV can read")
    inputs = _parameters_of(run, path) | {image_name: image}
    try:
        (outputs,) = engine.run(runtime_parameters=inputs, serialize_results=True)
    except WorkflowError as error:
        raise FileError(str(error.inner_error or error)) from error
    dump_image_processing_results(outputs, str(path), str(run.output), save_image_outputs=True)
    _check_sinks(outputs)


def _check_sinks(outputs: Mapping[str, Any]) -> None:
    """An output `failed` or `..._failed` says that a sink did not do its part, `..._message` why."""
    for name, value in outputs.items():
        if value is True and name.split("_")[-1] == "failed":
            raise FileError(
                f"{name}: {outputs.get(name.removesuffix('failed') + 'message', 'no reason given')}"
            )


def _parameters_of(run: Run, path: Path) -> dict[str, Any]:
    """A file's own parameters: its value of a batch input, and its name where the workflow takes one."""
    parameters = dict(run.parameters)
    for entry in run.definition["inputs"]:
        name = entry["name"]
        if entry["type"] == "WorkflowBatchInput":
            if path.name not in parameters.get(name, {}):
                raise FileError(f"`{name}` has no value for it")
            parameters[name] = [parameters[name][path.name]]
        elif name == "image_name":
            parameters.setdefault(name, path.name)
    return parameters


def _run_over_video(run: Run, path: Path, image_name: str) -> None:
    from inference_cli.lib.workflows.entities import OutputFileType
    from inference_cli.lib.workflows.video_adapter import process_video_with_workflow

    folder = run.output / path.name
    parameters = _parameters_of(run, path)
    try:
        with quiet():
            details = process_video_with_workflow(
                input_video_path=str(path),
                output_directory=str(folder),
                output_file_type=OutputFileType.CSV,
                workflow_specification=run.definition,
                workflow_parameters=parameters,
                image_input_name=image_name,
            )
    except Exception as error:  # OpenCV, Inference and supervision have many for a video that cannot be read.
        raise FileError(str(error)) from error
    if details.processing_errors:
        raise FileError(str(details.processing_errors[0]))
    if details.structured_results_file is None:
        raise FileError("not a video that OpenCV can read: it has no frame")
