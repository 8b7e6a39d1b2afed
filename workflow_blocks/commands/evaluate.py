"""The command `workflow-blocks evaluate`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from workflow_blocks.commands.errors import exit_with_message
from workflow_blocks.datasets.errors import DatasetError
from workflow_blocks.inference_host.engine import use_local_settings
from workflow_blocks.running.definitions import read_definition
from workflow_blocks.running.errors import RunError
from workflow_blocks.running.folder import progress_bar
from workflow_blocks.running.output import refuse_inputs_inside
from workflow_blocks.running.parameters import (
    ParameterError,
    parameter_inputs,
    parse_parameters,
    with_directories_in,
)
from workflow_blocks.running.sink_folders import sink_folders
from workflow_blocks.settings_error import SettingsError

if TYPE_CHECKING:
    from workflow_blocks.datasets.labelled_images import LabelledImages
    from workflow_blocks.evaluation.evaluation import Evaluation

MAX_PROBLEMS_SHOWN = 10

_DEFAULT_MODEL = "moondream2-demo"


def evaluate(
    context: typer.Context,
    dataset: Annotated[Path, typer.Option(metavar="DIR", help="A labelled dataset.", show_default=False)],
    format: Annotated[
        str | None,
        typer.Option(
            metavar="coco|yolo|pascal_voc", help="The dataset's format.", show_default="by its files"
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="The split to evaluate on.")] = "valid",
    prompts: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="JSON: classes with their prompts, as prompts.json has them, or the prompts alone. With "
            "--workflow, they are its parameters `prompts` and `confidence`.",
            show_default="the class names",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="The model of the detection block. With --workflow, its parameter `model`.",
            show_default=_DEFAULT_MODEL,
        ),
    ] = None,
    workflow: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="Evaluate this workflow instead. Its parameters follow as --PARAMETER VALUE...; those that "
            "have the name of an option here come last, after `--`.",
            show_default=False,
        ),
    ] = None,
    predictions: Annotated[
        str | None,
        typer.Option(help="The output of --workflow with the detections.", show_default="found by its kind"),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The results' folder.")] = Path("evaluation"),
    again: Annotated[bool, typer.Option("--again", help="Forget the results of an earlier run.")] = False,
) -> None:
    """Measures how good prompts, or a whole workflow, are on a labelled dataset.

    It prints a table, and writes report.html (figures, curves, the worst mistakes as pictures), metrics.json
    and prompts.json: the best prompts and thresholds, for `run --parameters` and `evaluate --prompts`. A
    second run continues where the first one stopped.

    --model and --prompts are also for a --workflow with parameters of these names. All other options always
    belong to this command; after `--`, everything is for the workflow: ... -- --split '{"train": 1}'
    """
    console = Console(highlight=False, emoji=False)
    with exit_with_message(RunError, ParameterError, SettingsError, DatasetError):
        use_local_settings()
        if workflow is None and context.args:
            raise ParameterError(f"there is no option {context.args[0]}; parameters belong to a --workflow")
        if workflow is None and predictions is not None:
            raise ParameterError("--predictions belongs to a --workflow; give one, or leave it out")
        images = _read(dataset, split, format)
        _show_problems(console, images)
        result = _evaluate(
            console,
            images,
            dataset,
            split,
            prompts,
            model,
            workflow,
            context.args,
            predictions,
            output,
            again,
        )
        _write(result, output)
    _show(console, result, output)
    if result.failures:
        raise typer.Exit(1)


def _read(dataset: Path, split: str, format: str | None) -> "LabelledImages":
    from workflow_blocks.datasets.formats import FORMATS
    from workflow_blocks.datasets.labelled import read_labelled

    formats = [name for name in FORMATS if name == format]
    if format is not None and not formats:
        raise DatasetError(f"the format is {format!r}; give {', '.join(FORMATS)}")
    return read_labelled(dataset, split, formats[0] if formats else None)


def _evaluate(
    console: Console,
    images: "LabelledImages",
    dataset: Path,
    split: str,
    prompts: Path | None,
    model: str | None,
    workflow: str | None,
    words: Sequence[str],
    predictions: str | None,
    output: Path,
    again: bool,
) -> "Evaluation":
    from workflow_blocks.evaluation.evaluation import evaluate_prompts, evaluate_workflow
    from workflow_blocks.evaluation.searches import read_prompts

    if prompts:
        refuse_inputs_inside([output], [prompts])
    place = f"{dataset.resolve().name}, {split}"
    given = read_prompts(prompts) if prompts else None
    with progress_bar(console) as progress:

        def track(indices: Sequence[int]) -> Any:
            return progress.track(indices, description="Detecting")

        if workflow is None:
            model = _DEFAULT_MODEL if model is None else model
            return evaluate_prompts(images, given, model, output, f"{model} on {place}", again, track)
        definition = read_definition(workflow)
        own = _parameters(definition, words, model, prompts)
        parameters = with_directories_in(output, own, definition)
        folders = [folder.path for folder in sink_folders(definition, parameters)]
        refuse_inputs_inside(folders, [image.path for image in images.images])
        thresholds = given.thresholds if given else None
        title = f"{Path(workflow).stem} on {place}"
        return evaluate_workflow(
            images, definition, parameters, output, title, predictions, again, track, thresholds
        )


def _parameters(
    definition: dict[str, Any], words: Sequence[str], model: str | None, prompts: Path | None
) -> dict[str, Any]:
    """The parameters of a workflow: those after it, and `--model` and `--prompts`, which must fit it."""
    from workflow_blocks.evaluation.searches import prompts_and_confidence
    from workflow_blocks.json_file import read_json

    known, given = parameter_inputs(definition), parse_parameters(words, definition)
    options: dict[str, Any] = {} if model is None else {"model": model}
    confidence = None
    if prompts:
        options["prompts"], confidence = prompts_and_confidence(read_json(prompts, RunError))
    for name in options:
        if name not in known:
            raise ParameterError(
                f"--{name}: the workflow has no parameter `{name}`; it has {', '.join(known) or 'none'}"
            )
        if name in given:
            raise ParameterError(f"`{name}` is given before and after `--`; leave one out")
    # Without such a parameter, the thresholds only decide at which confidence the figures are computed.
    if confidence and "confidence" in known:
        options["confidence"] = confidence
    return options | given


def _write(evaluation: "Evaluation", output: Path) -> None:
    from workflow_blocks.evaluation.evaluation import write_results

    write_results(evaluation, output)


def _show_problems(console: Console, images: "LabelledImages") -> None:
    for problem in images.problems[:MAX_PROBLEMS_SHOWN]:
        console.print(f"[yellow]{escape(_printable(str(problem)))}[/]", soft_wrap=True)
    rest = len(images.problems) - MAX_PROBLEMS_SHOWN
    if rest > 0:
        console.print(f"[yellow]... and {rest} more, in report.html and metrics.json[/]")


def _show(console: Console, evaluation: "Evaluation", output: Path) -> None:
    from workflow_blocks.evaluation.evaluation_table import note_on_thresholds, tables

    for table in tables(evaluation):
        console.print(table)
    if note := note_on_thresholds(evaluation):
        console.print(f"[yellow]{note}[/]", soft_wrap=True)
    for path, reason in list(evaluation.failures.items())[:MAX_PROBLEMS_SHOWN]:
        console.print(f"[red]Failed: {escape(_printable(f'{path}: {reason}'))}[/]", soft_wrap=True)
    console.print(
        f"[bold]{len(evaluation.images)} images, {evaluation.seconds_per_image:.3g} s per image. "
        f"Results in {escape(_printable(str(output)))}/[/]\n"
        "  report.html     figures, curves, and the worst mistakes as pictures\n"
        "  metrics.json    all figures",
        soft_wrap=True,
    )
    if evaluation.chosen():
        console.print("  prompts.json    the best prompts and thresholds", soft_wrap=True)


def _printable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
