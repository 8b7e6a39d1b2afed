"""What `workflow-blocks evaluate` adds to the detector's own time: reading, and keeping what is found."""

import tempfile
from pathlib import Path
from typing import Annotated

import cv2
import typer
from rich.table import Table

from benchmarks.draw import FOLDER, publish
from benchmarks.measure import drawn_image, machine, show
from workflow_blocks.bundled_model import demo_model_folder
from workflow_blocks.evaluation.detecting import Detecting, detect_in, detection_workflow, make_detector
from workflow_blocks.evaluation.searches import View

HEIGHT, WIDTH = 480, 640
PROMPTS = ("red circle", "blue square", "star")


def detect(images: int, folder: Path) -> Detecting:
    """Detects in drawn images, of which no two are equal."""
    files = []
    for number in range(images):
        image = drawn_image(HEIGHT, WIDTH)
        image[0, 0] = (number % 256, number // 256, 0)
        files.append(folder / f"{number}.png")
        cv2.imwrite(str(files[-1]), image)
    views = [View(prompt, (prompt,)) for prompt in PROMPTS]
    definition = detection_workflow(views, str(demo_model_folder()))
    return detect_in(files, {}, folder / "output", lambda: make_detector(definition, {}, joins_outputs=True))


def main(
    images: Annotated[int, typer.Option(help="How many images.")] = 1000,
    folder: Annotated[Path, typer.Option(help="Where the results go.")] = FOLDER,
) -> None:
    """Prints a table, and writes evaluation.json."""
    with tempfile.TemporaryDirectory() as temporary:
        detecting = detect(images, Path(temporary))
    detector = sum(found.seconds for found in detecting.found.values())
    added = detecting.seconds / detector - 1
    table = Table("images", "decoding and detector, s", "all, s", "added", title="workflow-blocks evaluate")
    table.add_row(
        str(len(detecting.found)), f"{detector:.1f}", f"{detecting.seconds:.1f}", f"{100 * added:.2f} %"
    )
    show(table)
    results = {"images": len(detecting.found), "size": f"{WIDTH} x {HEIGHT}", "prompts": len(PROMPTS)}
    seconds = {"decoding and detector": detector, "all": detecting.seconds}
    publish("evaluation", {"machine": machine(), **results, "seconds": seconds, "added": added}, folder)


if __name__ == "__main__":
    typer.run(main)
