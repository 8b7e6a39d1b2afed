"""The command `workflow-blocks compare`."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from workflow_blocks.bundled_model import DEMO_MODEL
from workflow_blocks.commands.demo import DEFAULT_PROMPTS
from workflow_blocks.commands.errors import exit_with_message
from workflow_blocks.commands.packages import PackageNotFoundError, package_folder
from workflow_blocks.image_files import ImageFileError, read_image_file
from workflow_blocks.running.errors import RunError
from workflow_blocks.running.files import IMAGE_SUFFIXES, SAMPLE_IMAGES, find_files, shown
from workflow_blocks.running.output import refuse_inputs_inside
from workflow_blocks.running.parameters import ParameterError, parse_parameters

if TYPE_CHECKING:
    from workflow_blocks.evaluation.comparison import Comparison


def compare(
    model: Annotated[
        str,
        typer.Option(
            metavar="PACKAGE", help=f"The folder of a model package, or {DEMO_MODEL}.", show_default=False
        ),
    ],
    source: Annotated[
        Path,
        typer.Option("--input", "-i", help="A folder or an image.", show_default="the bundled samples"),
    ] = SAMPLE_IMAGES,
    images: Annotated[Path | None, typer.Option(hidden=True, help="Another name of --input.")] = None,
    prompts: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PROMPT...",
            help="What to search for.",
            show_default=" ".join(f'"{prompt}"' if " " in prompt else prompt for prompt in DEFAULT_PROMPTS),
        ),
    ] = None,
    further_prompts: Annotated[list[str] | None, typer.Argument(hidden=True, metavar="")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The results' folder.")] = Path(
        "compare_output"
    ),
) -> None:
    """Compares Inference's own Moondream2 class with this plugin's.

    Both load one package and search the same images for the same prompts, each in a process of its own.
    Inference's class runs the Python code of the package. If it cannot run, the reason and this plugin's
    results are shown.
    """
    from workflow_blocks.evaluation.comparison import ComparisonError, compare_classes

    console = Console(highlight=False)
    with exit_with_message(ComparisonError, PackageNotFoundError, RunError, ParameterError):
        package = package_folder(model)
        files, failures = _images(images or source)
        words = _prompts(prompts or [], further_prompts or [])
        refuse_inputs_inside([output], files)
        _make_folder(output)
        with console.status("Starting Inference (its imports take a while)...") as status:

            def show(title: str) -> None:
                status.update(f"Running {title} on {len(files)} images...")

            comparison = compare_classes(package, files, words, output, show)
        try:
            _report(comparison, output, console)
        except OSError as error:
            raise RunError(f"{output} cannot be written: {error.strerror}") from error
    for path, reason in failures.items():
        console.print(f"[red]Failed: {escape(shown(Path(path.name)))}: {escape(reason)}[/]", soft_wrap=True)
    if failures:
        raise typer.Exit(1)


def _report(comparison: "Comparison", output: Path, console: Console) -> None:
    from workflow_blocks.evaluation.comparison_pictures import PREFIX, write_pictures
    from workflow_blocks.evaluation.comparison_report import (
        FILE,
        MEANING,
        boxes_table,
        runtimes_table,
        write_comparison,
    )

    write_comparison(comparison, output / FILE)
    write_pictures(comparison, output)
    if comparison.why_not:
        console.print(
            f"[yellow]Inference's class did not run: {escape(comparison.why_not)}.[/]\n", soft_wrap=True
        )
    console.print(boxes_table(comparison))
    console.print(runtimes_table(comparison))
    if comparison.inference:
        console.print(MEANING, style="dim")
    console.print(
        f"\n[bold]Results in {escape(str(output))}/[/]\n"
        f"  {PREFIX + '*':<18}a picture for each image\n  {FILE:<18}all boxes and figures",
        soft_wrap=True,
    )


def _prompts(first: Sequence[str], further: Sequence[str]) -> list[str]:
    """Distinct prompts, from words as `run` takes them."""
    if further and not first:
        raise ParameterError(f"{further[0]!r} belongs to no option; write --prompts {further[0]!r}")
    given = [*first, *further]
    like = {"type": "WorkflowParameter", "name": "prompts", "default_value": DEFAULT_PROMPTS}
    words = (
        parse_parameters(["--prompts", *given], {"inputs": [like]})["prompts"] if given else DEFAULT_PROMPTS
    )
    for word in words:
        if not isinstance(word, str) or not word.strip():
            raise ParameterError(f"`prompts` has {word!r}; give prompts that are text and not blank")
    return list(dict.fromkeys(word.strip() for word in words))


def _images(source: Path) -> tuple[list[Path], dict[Path, str]]:
    """The images that can be read, and why others cannot."""
    files = find_files(source)
    images = files if source.is_file() else [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
    if not images:
        raise RunError(f"no image ({', '.join(sorted(IMAGE_SUFFIXES))}) in {source}")
    failures: dict[Path, str] = {}
    for path in images:
        try:
            read_image_file(path)
        except ImageFileError as error:
            failures[path] = str(error)
    if len(failures) == len(images):
        raise RunError(f"{shown(images[0])} is {failures[images[0]]}")
    return [path.resolve() for path in images if path not in failures], failures


def _make_folder(output: Path) -> None:
    from workflow_blocks.evaluation.comparison_pictures import PREFIX
    from workflow_blocks.evaluation.comparison_report import FILE, is_comparison
    from workflow_blocks.evaluation.measure import is_log

    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{output} cannot be made: {error.strerror}; choose another --output") from error
    logs = [log for log in output.glob("*.log") if not is_log(log)]
    theirs = [*output.glob(f"{PREFIX}*"), *logs]
    if (output / FILE).exists():
        theirs = [] if is_comparison(output / FILE) else [output / FILE]
    if theirs:
        raise RunError(f"{output} holds files that no comparison has made; choose another --output")
    if not os.access(output, os.W_OK):
        raise RunError(f"{output} cannot be written to; choose another --output")
