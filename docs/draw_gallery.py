"""Draws the pictures of `workflows/` again, from the definitions and the bundled model: `make gallery`."""

import base64
import json
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import cv2
import numpy as np
import supervision as sv
from rich.progress import track

from training.sample_video import FILE as SAMPLE_VIDEO
from training.sample_video import N_FRAMES
from training.scenes import SceneOptions, UInt8Array, draw_scene
from workflow_blocks.commands.messages import hide_warnings_of_libraries
from workflow_blocks.inference_host.engine import (
    make_engine,
    make_model_manager,
    use_local_settings,
)
from workflow_blocks.running.definitions import read_definition
from workflow_blocks.running.files import SAMPLE_IMAGES

FOLDER = Path("docs/gallery")
HEIGHT, GAP, JPEG_QUALITY = 360, 8, 85
PROMPTS = ["red circle", "blue star", "square"]


def main() -> None:
    use_local_settings()
    FOLDER.mkdir(exist_ok=True)
    hide_warnings_of_libraries()
    for name, draw in track(PICTURES.items(), description="Drawing"):
        save(draw(), FOLDER / f"{name}.jpg")


def detect_and_visualize() -> list[UInt8Array]:
    return [
        picture("detect_and_visualize", image, prompts=PROMPTS) for image in samples("clutter", "gradient")
    ]


def detect_visualize_export() -> list[UInt8Array]:
    with tempfile.TemporaryDirectory() as folder:
        places = {"target_directory": folder, "dataset_directory": f"{folder}/dataset"}
        return [
            picture("detect_visualize_export", image, prompts=PROMPTS, **places)
            for image in samples("clutter", "gradient")
        ]


def count_by_prompt() -> list[UInt8Array]:
    return [picture("count_by_prompt", image, prompts=PROMPTS) for image in samples("clutter", "gradient")]


def redact_by_prompt() -> list[UInt8Array]:
    (image,) = samples("gradient")
    results = run("redact_by_prompt", image=image, prompts="red circle", pixel_size=24)
    return [image, results[0]["redacted"].numpy_image]


def crop_and_prompt_again() -> list[UInt8Array]:
    return [
        picture("crop_and_prompt_again", image, prompts="shape", part_prompts=["star"])
        for image in samples("gradient", "stars")
    ]


def tiled_small_objects() -> list[UInt8Array]:
    """Without tiles, and with them."""
    options = SceneOptions(
        min_short_side=800, max_short_side=800, min_object_size=0.05, max_object_size=0.09, max_objects=10
    )
    image = np.ascontiguousarray(draw_scene(4_000_143, options).image[..., ::-1])
    names = ("detect_and_visualize", "tiled_small_objects")
    return [picture(name, image, prompts=["shape"]) for name in names]


def label_a_dataset() -> list[UInt8Array]:
    """What `supervision` reads back from the dataset."""
    with tempfile.TemporaryDirectory() as folder:
        images = samples("clutter", "gradient")
        run("label_a_dataset", image=images, prompts=PROMPTS, target_directory=folder, split={"train": 1})
        train = Path(folder) / "train"
        dataset = sv.DetectionDataset.from_yolo(
            str(train / "images"), str(train / "labels"), str(Path(folder) / "data.yaml")
        )
        pictures = []
        for _, image, detections in dataset:
            labels = [dataset.classes[class_id] for class_id in detections.class_id]
            boxed = sv.BoxAnnotator(thickness=3).annotate(image.copy(), detections)
            annotator = sv.LabelAnnotator(
                text_color=sv.Color.BLACK, text_scale=0.7, text_padding=5, smart_position=True
            )
            pictures.append(annotator.annotate(boxed, detections, labels))
        return pictures


def alert_when_present() -> list[UInt8Array]:
    """The picture that the webhook received."""
    received: list[dict[str, Any]] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Receiver) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/"
        run("alert_when_present", image=samples("stars")[0], prompts=["star"], url=url)
        server.shutdown()
    data = np.frombuffer(base64.b64decode(received[0]["picture_jpeg_base64"]), np.uint8)
    return [np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)]


def track_and_count_video() -> list[UInt8Array]:
    """The sample video before and after the objects cross the line."""
    from inference import InferencePipeline

    frames: list[UInt8Array] = []
    pipeline = InferencePipeline.init_with_workflow(
        video_reference=str(SAMPLE_VIDEO),
        workflow_specification=read_definition("track_and_count_video"),
        on_prediction=lambda result, _: frames.append(result["visualization"].numpy_image),
    )
    pipeline.start(use_main_thread=True)
    pipeline.join()
    return [frames[index] for index in (4, N_FRAMES - 2)]


def prompts_per_image() -> list[UInt8Array]:
    prompts = [["red circle"], ["green triangle", "blue star"]]
    results = run("prompts_per_image", image=samples("clutter", "gradient"), prompts=prompts)
    return [result["visualization"].numpy_image for result in results]


PICTURES: dict[str, Callable[[], list[UInt8Array]]] = {
    draw.__name__: draw
    for draw in (
        detect_and_visualize,
        detect_visualize_export,
        count_by_prompt,
        redact_by_prompt,
        crop_and_prompt_again,
        tiled_small_objects,
        label_a_dataset,
        alert_when_present,
        track_and_count_video,
        prompts_per_image,
    )
}


def samples(*names: str) -> list[UInt8Array]:
    """Sample images (H, W, 3), BGR."""
    return [np.asarray(cv2.imread(str(SAMPLE_IMAGES / f"{name}.jpg")), np.uint8) for name in names]


@cache
def model_manager() -> Any:
    return make_model_manager()


def run(name: str, **inputs: Any) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = make_engine(read_definition(name), model_manager()).run(
        runtime_parameters=inputs
    )
    return results


def picture(name: str, image: UInt8Array, **inputs: Any) -> UInt8Array:
    visualization: UInt8Array = run(name, image=image, **inputs)[0]["visualization"].numpy_image
    return visualization


def save(pictures: Sequence[UInt8Array], file: Path) -> None:
    """Pictures of one height side by side, as a small JPEG."""
    scaled = [
        cv2.resize(one, (round(one.shape[1] * HEIGHT / one.shape[0]), HEIGHT), interpolation=cv2.INTER_AREA)
        for one in pictures
    ]
    gap = np.full((HEIGHT, GAP, 3), 255, np.uint8)
    row = np.hstack([part for one in scaled for part in (gap, one)][1:])
    cv2.imwrite(str(file), row, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])


if __name__ == "__main__":
    main()
