"""The command `workflow-blocks compare`."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from workflow_blocks.commands.demo import DEFAULT_PROMPTS
from workflow_blocks.commands.errors import exit_with_message
from workflow_blocks.running.errors import RunError
from workflow_blocks.running.files import IMAGE_SUFFIXES, SAMPLE_IMAGES, find_files
from workflow_blocks.running.parameters import ParameterError, parse_parameters

if TYPE_CHECKING:
    from workflow_blocks.evaluation.comparison import Comparison

DEMO_MODEL = "moondream2-demo"
_DEMO_PACKAGE = Path(__file__).parents[1] / "demo_model"


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
    with exit_with_message(ComparisonError, RunError, ParameterError):
        package, files = _package(model), _images(images or source)
        words = _prompts(prompts or [], further_prompts or [])
        _make_folder(output)
        with console.status("Starting Inference (its imports take a while)...") as status:

            def show(title: str) -> None:
                status.update(f"Running {title} on {len(files)} images...")

            comparison = compare_classes(package, files, words, output, show)
    _report(comparison, output, console)


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


def _package(model: str) -> Path:
    folder = _DEMO_PACKAGE if model == DEMO_MODEL else Path(model).expanduser()
    if not folder.is_dir():
        raise RunError(
            f"no package {model}; give its folder: see 'Compare before you switch' in docs/models.md"
        )
    if not (folder / "config.json").is_file():
        raise RunError(f"{folder} is not a model package: it has no config.json")
    return folder.resolve()


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


def _images(source: Path) -> list[Path]:
    import cv2

    if not source.exists():
        raise RunError(f"no image: {source} does not exist")
    files = find_files(source)
    images = files if source.is_file() else [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
    if not images:
        raise RunError(f"no image ({', '.join(sorted(IMAGE_SUFFIXES))}) in {source}")
    for path in images:
        if cv2.imread(str(path)) is None:
            raise RunError(f"{path} is not an image that OpenCV can read")
    return [path.resolve() for path in images]


def _make_folder(output: Path) -> None:
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{output} cannot be made: {error.strerror}; choose another --output") from error
    if not os.access(output, os.W_OK):
        raise RunError(f"{output} cannot be written to; choose another --output")
