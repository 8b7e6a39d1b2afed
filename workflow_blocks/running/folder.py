"""Runs a workflow over a folder of images and videos, with results like those of Inference's command line.

What this adds to that command line:

- Tables and datasets have the images' own names.
- One engine serves all images, so that a sink which appends to a log writes one file, not one for each image.
- Damaged and incomplete files are skipped and listed, and set the exit code.
- Unknown parameters are refused.
- Results of different parameters are never mixed, and a file whose content changed is processed again.
- Nothing is written over or removed but what an earlier run has made.
"""

import hashlib
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from workflow_blocks.image_files import MAX_BYTES, ImageFileError, decode_image
from workflow_blocks.inference_host.engine import make_engine, make_model_manager
from workflow_blocks.installation import is_inference_missing
from workflow_blocks.running.errors import FileError, RunError, definition_problem, reason_of
from workflow_blocks.running.files import VIDEO_SUFFIXES, shown
from workflow_blocks.running.output import OutputFolder, Record, refuse_inputs_inside
from workflow_blocks.running.parameters import (
    BATCH_INPUT,
    IMAGE_NAME_PARAMETER,
    check_values,
    image_input,
)
from workflow_blocks.running.settings import check_settings
from workflow_blocks.running.sink_folders import sink_folders
from workflow_blocks.running.sinks import check_sinks
from workflow_blocks.running.video_files import is_cut_off

# Wraps the files to show progress, as `tqdm.tqdm` does.
Track = Callable[[Sequence[Path]], Iterable[Path]]

_Process = Callable[[Path, bytes | None, Path], None]


@dataclass(frozen=True)
class Run:
    """A workflow, its parameters, and the folder of its results."""

    definition: dict[str, Any]
    parameters: dict[str, Any]
    output: Path


@dataclass(frozen=True)
class RunResult:
    """What has become of the files.

    Attributes:
        results: the folder of the results of each file that has them.
        n_done_before: how many of them are from an earlier run.
        failures: why the others failed.
        records: all files that have results in the output folder, also those of other inputs.
    """

    results: dict[Path, Path]
    n_done_before: int
    failures: dict[Path, str]
    records: list[Record]


def run_over_files(
    run: Run, files: Sequence[Path], again: bool = False, track: Track | None = None
) -> RunResult:
    """Runs a workflow over the files that have no results yet.

    Results are in `<output>/<file name>/`; if that name is taken, a hash is added to it.

    Args:
        run: what to run.
        files: images and videos.
        again: whether to remove all results and start anew, rather than to continue an earlier run.
        track: wraps the files, to show progress; by default, a bar in the terminal shows it.

    Raises:
        RunError: the workflow cannot run, or the results cannot be written there.
        ParameterError: a step refuses the value of a parameter.
        SettingsError: a `MOONDREAM2_*` variable is invalid.
    """
    console = Console(highlight=False, quiet=track is not None)
    folders = sink_folders(run.definition, run.parameters)
    refuse_inputs_inside([run.output, *(folder.path for folder in folders)], files)
    output = OutputFolder(run.output, folders)
    with console.status("Starting Inference (its imports take a while)..."):
        check_settings()
        process = _make_processor(run)
    aside = output.open({"parameters": run.parameters, "definition": run.definition}, again)
    if aside is not None:
        console.print(
            "A run that was killed left files. They may be its own or yours, and were moved to "
            f"{escape(str(aside))}/",
            soft_wrap=True,
        )
    results: dict[Path, Path] = {}
    failures: dict[Path, str] = {}
    n_done_before = 0
    with ExitStack() as stack:
        if track is None:
            bar = stack.enter_context(progress_bar(console))
            track = partial(bar.track, description="Processing")
        try:
            for path in track(files):
                try:
                    n_done_before += not _process_if_new(path, output, process)
                    results[path] = output.results_of(path)
                except Exception as error:  # whatever one file does, the others are processed
                    failures[path] = reason_of(error)
        finally:
            output.note_files_of_sinks()
    return RunResult(results, n_done_before, failures, output.records)


def progress_bar(console: Console) -> Progress:
    """How commands show how many files are done, and when the rest will be."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console)


def _process_if_new(path: Path, output: OutputFolder, process: _Process) -> bool:
    """Returns False if the file has results already."""
    is_video = path.suffix.lower() in VIDEO_SUFFIXES
    content = None if is_video else _read(path)
    digest = _hash_of_file(path) if content is None else hashlib.sha256(content).hexdigest()
    if output.is_done(path, digest):
        return False
    with output.writing(path, digest) as folder:
        process(path, content, folder)
    return True


def _read(path: Path) -> bytes:
    if path.stat().st_size > MAX_BYTES:
        raise FileError(f"larger than {MAX_BYTES:,} bytes")
    return path.read_bytes()


def _hash_of_file(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


def _make_processor(run: Run) -> _Process:
    """Compiles the workflow.

    Returns:
        A function of a file, its content if it is an image, and the folder for its results. It raises an
        exception if it cannot process the file.

    Raises:
        RunError: the workflow does not compile.
        ParameterError: a step refuses the value of a parameter.
    """
    try:
        engine = make_engine(run.definition, make_model_manager())
        image_parameter = image_input(run.definition)
    except Exception as error:  # some wrong definitions raise KeyError and the like
        if isinstance(error, ImportError) and is_inference_missing(error):
            raise
        problem = definition_problem(error, run.definition)
        raise RunError(f"the workflow cannot be run: {problem}") from error
    check_values(engine._engine._compiled_workflow.input_substitutions, run.definition, run.parameters)

    def process(path: Path, content: bytes | None, folder: Path) -> None:
        if content is None:
            _process_video(run, path, image_parameter, folder)
        else:
            _process_image(run, engine, path, content, image_parameter, folder)

    return process


def _process_image(
    run: Run, engine: Any, path: Path, content: bytes, image_parameter: str, folder: Path
) -> None:
    from inference_cli.lib.workflows.common import dump_image_processing_results

    try:
        image = decode_image(content)
    except ImageFileError as error:
        raise FileError(str(error)) from error
    inputs = _parameters_of(run, path) | {image_parameter: image}
    (outputs,) = engine.run(runtime_parameters=inputs, serialize_results=True)
    written = dump_image_processing_results(outputs, folder.name, str(folder.parent), save_image_outputs=True)
    for pictures in written.image_outputs.values():
        for picture in pictures:
            if not Path(picture).is_file():
                raise FileError(f"OpenCV cannot write {Path(picture).name}")
    check_sinks(run.definition, outputs)


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
            parameters.setdefault(name, shown(Path(path.name)))
    return parameters


def _process_video(run: Run, path: Path, image_parameter: str, folder: Path) -> None:
    from inference_cli.lib.workflows.entities import OutputFileType
    from inference_cli.lib.workflows.video_adapter import process_video_with_workflow

    if is_cut_off(path):
        raise FileError("incomplete: the file is shorter than its container says")
    parameters = _parameters_of(run, path)
    failures: list[FileError] = []

    def check_sinks_of_frame(outputs: Any, _: Any) -> None:
        try:
            check_sinks(run.definition, outputs or {})
        except FileError as failure:
            failures.append(failure)

    with _name_for_opencv(path) as name:
        try:
            details = process_video_with_workflow(
                input_video_path=name,
                output_directory=str(folder),
                output_file_type=OutputFileType.CSV,
                workflow_specification=run.definition,
                workflow_parameters=parameters,
                image_input_name=image_parameter,
                on_prediction=check_sinks_of_frame,
            )
        except Exception as error:  # OpenCV, Inference and supervision raise many types
            raise FileError(reason_of(error)) from error
    if details.processing_errors:
        raise FileError(str(details.processing_errors[0]))
    if details.structured_results_file is None:
        raise FileError("not a video that OpenCV can read: it has no frame")
    if failures:
        raise failures[0]


@contextmanager
def _name_for_opencv(path: Path) -> Iterator[str]:
    """A name of a file that OpenCV can open: it crashes at names that are not UTF-8."""
    try:
        str(path.resolve()).encode()
    except UnicodeError:
        with tempfile.TemporaryDirectory(prefix="workflow-blocks-") as folder:
            link = Path(folder) / f"video{path.suffix.lower()}"
            link.symlink_to(path.resolve())
            yield str(link)
    else:
        yield str(path.resolve())
