"""The main job on sample images: detect, visualize, export."""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import rich
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from workflow_blocks.commands.errors import exit_with_message
from workflow_blocks.inference_host.engine import make_engine, make_model_manager, quiet, use_local_settings
from workflow_blocks.running.definitions import read_definition
from workflow_blocks.running.errors import RunError
from workflow_blocks.running.files import SAMPLE_IMAGES, find_images

WORKFLOW = "detect_visualize_export"
DEFAULT_PROMPTS = ("red circle", "blue star", "square", "yellow shape")


def demo(
    images: Annotated[
        Path | None, typer.Option(help="A folder of images; without it, the bundled samples.")
    ] = None,
    prompts: Annotated[list[str] | None, typer.Option("--prompt", help="What to find; repeat it.")] = None,
    model: Annotated[str, typer.Option(help="A model id or package.")] = "moondream2-demo",
    output: Annotated[Path, typer.Option(help="Where the results are written.")] = Path("demo_output"),
) -> None:
    """Detects, visualizes and exports on a folder of images."""
    use_local_settings()
    with exit_with_message(RunError):
        run_demo(find_images(images or SAMPLE_IMAGES), prompts or list(DEFAULT_PROMPTS), model, output)


@dataclass(frozen=True)
class ImageResult:
    """What the workflow gave for one image."""

    path: Path
    outputs: dict[str, Any]

    def confidences(self, prompt: str) -> list[float]:
        detections = self.outputs["predictions"]["predictions"]
        return [item["confidence"] for item in detections if item["class"] == prompt]


def run_demo(images: Sequence[Path], prompts: Sequence[str], model: str, output: Path) -> None:
    """Runs the workflow over images, writes what it gives and prints a table of it.

    Raises:
        RunError: an image cannot be read, or the workflow cannot run with these inputs.
    """
    console = Console()
    output.mkdir(parents=True, exist_ok=True)
    for table in output.glob("detections_*.csv"):
        table.unlink()  # of an earlier run: the sink names each run's file by its time
    with console.status("Starting Inference (its imports take a while)..."):
        engine = _start_engine()
    results = []
    for path in track(images, description="Detecting...", console=console):
        result = _run_on_image(engine, path, prompts, model, output)
        _write_result(result, output)
        results.append(result)
    console.print(_summary(results, prompts))
    rich.print(_whereabouts(output, len(results)))


def _start_engine() -> Any:
    with quiet():
        return make_engine(read_definition(WORKFLOW), make_model_manager())


def _run_on_image(engine: Any, path: Path, prompts: Sequence[str], model: str, output: Path) -> ImageResult:
    import cv2
    from inference.core.workflows.errors import WorkflowError

    image = cv2.imread(str(path))
    if image is None:
        raise RunError(f"{path} is not an image that OpenCV can read")
    inputs = {
        "image": image,
        "image_name": path.name,
        "prompts": list(prompts),
        "model": model,
        "target_directory": str(output.resolve()),
        "dataset_directory": str(output.resolve() / "dataset"),
    }
    try:
        (outputs,) = engine.run(runtime_parameters=inputs, serialize_results=True)
    except WorkflowError as error:
        reason = error.inner_error or error
        raise RunError(f"{path.name}: {reason}") from error
    if outputs["export_failed"]:
        raise RunError(f"the table could not be written: {outputs['export_message']}")
    if outputs["dataset_failed"]:
        raise RunError(outputs["dataset_message"])
    return ImageResult(path, outputs)


def _write_result(result: ImageResult, output: Path) -> None:
    """The annotated image as JPEG and the rest of the outputs as JSON."""
    picture = base64.b64decode(result.outputs["visualization"]["value"])
    (output / f"{result.path.stem}.jpg").write_bytes(picture)
    data = {name: result.outputs[name] for name in ("predictions", "counts")}
    (output / f"{result.path.stem}.json").write_text(json.dumps(data, indent=2) + "\n")


def _summary(results: Sequence[ImageResult], prompts: Sequence[str]) -> Table:
    table = Table("image", "prompt", "count", "confidence")
    for column in table.columns[2:]:
        column.justify = "right"
    for result in results:
        for row, prompt in enumerate(prompts):
            confidences = result.confidences(prompt)
            table.add_row(
                result.path.name if row == 0 else "",
                prompt,
                str(result.outputs["counts"][prompt]),
                ", ".join(f"{value:.2f}" for value in confidences) or "-",
                end_section=row == len(prompts) - 1,
            )
    return table


def _whereabouts(output: Path, count: int) -> str:
    return (
        f"[bold]Results of {count} images in {output}/[/bold]\n"
        "  *.jpg              the images with boxes and labels\n"
        "  detections_*.csv   a row for each detection\n"
        "  dataset/           images and boxes as a COCO dataset\n"
        "  *.json             predictions and counts of each image"
    )
