"""Measures what `workflow_blocks/moondream2@v1` says about pictures that training never draws.

`python -m training.evaluate_block` runs the block in Inference's engine, one picture at a time.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
import supervision as sv
import typer
from rich.progress import track

from training.batches import picture_of_scene
from training.evaluate import COUNTING, FIRST_SEED, print_rows
from training.evaluate_answers import MAX_COUNT
from training.evaluate_things import Share, pictures_kept_aside
from training.icons import load_trained_drawings
from training.names import NAMES
from training.pictures import Item, Picture
from training.scenes import draw_scene
from training.words import Wanted, found, wordings_of
from workflow_blocks.bundled_model import DEMO_MODEL
from workflow_blocks.inference_host.engine import make_engine, make_model_manager, use_local_settings

_SINGULAR = {plural: name for name in NAMES for _, plural in wordings_of(name)[:1]}


class Block:
    """The block with each task's own fields, on a model."""

    def __init__(self, model: str) -> None:
        self._manager = make_model_manager()
        self._model = model
        self._engines: dict[str, Any] = {}

    def __call__(self, picture: Picture, task_type: str, **fields: Any) -> dict[str, Any]:
        if task_type not in self._engines:
            self._engines[task_type] = make_engine(self._definition(task_type, fields), self._manager)
        image = np.ascontiguousarray(picture.image[..., ::-1])
        (result,) = self._engines[task_type].run(runtime_parameters={"image": image, **fields})
        return dict(result)

    def _definition(self, task_type: str, fields: dict[str, Any]) -> dict[str, Any]:
        step: dict[str, Any] = {"type": "workflow_blocks/moondream2@v1", "images": "$inputs.image"}
        step |= {"name": "ask", "task_type": task_type, "model_version": self._model}
        steps = [step | {name: f"$inputs.{name}" for name in fields}]
        if task_type.startswith("detection-grounded"):
            detect: dict[str, Any] = {**step, "name": "detect", "classes": ["shape"]}
            detect["task_type"] = "open-vocabulary-object-detection"
            steps[0]["grounding_detection"] = "$steps.detect.predictions"
            steps = [detect, *steps]
        outputs = ("predictions", "output", "counts", "classes")
        return {
            "version": "1.0",
            "inputs": [
                {"type": "InferenceImage", "name": "image"},
                *({"type": "WorkflowParameter", "name": name} for name in fields),
            ],
            "steps": steps,
            "outputs": [
                {"type": "JsonField", "name": name, "selector": f"$steps.ask.{name}"} for name in outputs
            ],
        }


def yes_or_no(block: Block, pictures: Sequence[tuple[np.random.Generator, Picture]]) -> dict[str, float]:
    """Yes and no scored: as often about what is there as about what is not."""
    shares = {"yes": Share(), "no": Share()}
    for rng, picture in pictures:
        there = [name for name in NAMES if any(Wanted(name).matches(item) for item in picture.items)]
        absent = [name for name in NAMES if found(Wanted(name), picture.items) == []]
        for truth, names in (("yes", there), ("no", absent)):
            if names:
                question = f"is there a {names[int(rng.integers(len(names)))]}?"
                result = block(picture, "classification", prompt=question, classes=["yes", "no"])
                shares[truth].add(result["output"] == truth)
    return {"right, balanced": float(np.mean([share.value for share in shares.values()]))}


def colours(block: Block, count: int) -> dict[str, float]:
    """The colours of detected shapes."""
    right = Share()
    for seed in range(FIRST_SEED, FIRST_SEED + count):
        picture = picture_of_scene(draw_scene(seed))
        task = "detection-grounded-visual-question-answering"
        result = block(picture, task, prompt="what colour is this?")
        for place, item in _matches(result["predictions"], picture.items, picture):
            right.add(result["output"][place] == item.colour)
    return {"right": right.value}


def everything(
    block: Block, pictures: Sequence[tuple[np.random.Generator, Picture]]
) -> dict[str, dict[str, float]]:
    """Detection without prompts: the names, and the boxes with the right name."""
    named, boxed = Share(), Share()  # F1: twice the hits, and all
    for _, picture in pictures:
        result = block(picture, "object-detection")
        names = [_SINGULAR.get(name, name) for name in result["classes"]]
        true = Counter(item.name for item in picture.items)
        named.add(2 * len(set(names) & set(true)), len(set(names)) + len(true))
        boxes = result["predictions"]
        of_boxes = [_SINGULAR.get(name, name) for name in boxes.data.get("class_name", [])]
        hits = sum(of_boxes[place] == item.name for place, item in _matches(boxes, picture.items, picture))
        boxed.add(2 * hits, len(boxes) + len(picture.items))
    return {"names": {"F1": named.value}, "boxes": {"F1": boxed.value}}


def counts(block: Block, pictures: Sequence[tuple[np.random.Generator, Picture]]) -> dict[str, float]:
    """Counts of one to five by pointing; each number weighs the same."""
    right = {number: Share() for number in range(1, MAX_COUNT + 1)}
    for _, picture in pictures:
        for name, number in Counter(item.name for item in picture.items).items():
            is_clear = all(Wanted(name).matches(item) is (item.name == name) for item in picture.items)
            if number in right and is_clear:
                result = block(picture, "pointing", classes=[name])
                right[number].add(result["counts"] == {name: number})
    return {"right": float(np.nanmean([share.value for share in right.values()]))}


def _matches(boxes: sv.Detections, items: Sequence[Item], picture: Picture) -> list[tuple[int, Item]]:
    """Pairs of a detection and the object that it overlaps most, by at least a half; each object once."""
    height, width = picture.image.shape[:2]
    true = np.array([item.box for item in items]).reshape(-1, 4) * (width, height, width, height)
    if not len(boxes) or not len(true):
        return []
    overlaps = sv.box_iou_batch(true, boxes.xyxy)
    pairs: dict[int, int] = {}
    for place in np.argsort(-overlaps.max(axis=0)).tolist():
        best = int(overlaps[:, place].argmax())
        if overlaps[best, place] >= 0.5:
            pairs.setdefault(best, place)
    return [(place, items[index]) for index, place in pairs.items()]


def main(
    model: Annotated[str, typer.Option(help="A package, or the bundled model.")] = DEMO_MODEL,
    pictures: Annotated[int, typer.Option(help="How many pictures to draw for each task.")] = 150,
) -> None:
    """Prints the figures of the block's tasks."""
    use_local_settings()
    block, styles = Block(model), load_trained_drawings()
    asked = list(pictures_kept_aside(styles, pictures, group=3))
    counted = list(pictures_kept_aside(styles, pictures, options=COUNTING, group=4))
    rows = {"yes or no, scored": yes_or_no(block, list(track(asked, "Yes or no")))}
    rows["colour of each detected shape"] = colours(block, pictures)
    rows |= {f"everything: {name}": own for name, own in everything(block, asked).items()}
    rows["counts by pointing, 1 to 5"] = counts(block, counted)
    print_rows(rows, f"workflow_blocks/moondream2@v1, {model}: {pictures} unseen pictures for each task")


if __name__ == "__main__":
    typer.run(main)
