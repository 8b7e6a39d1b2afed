"""Draws the pictures of `workflows/` and of the playground again, with the bundled model: `make gallery`."""

import base64
import json
import shutil
import tempfile
import textwrap
from collections.abc import Callable, Sequence
from functools import cache
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import cv2
import numpy as np
import supervision as sv
from playwright.sync_api import FilePayload, Page, ViewportSize, sync_playwright
from rich.progress import track

from tests.real_server import running_server
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
SAMPLE_VIDEO = Path("workflow_blocks/sample_video/crossing.mp4")
HEIGHT, GAP, JPEG_QUALITY = 360, 8, 85
PROMPTS = ["car", "elephant", "tree"]
ANIMALS = ["lion", "elephant", "panda", "frog", "owl"]
VEHICLES = {"vehicle": ["car", "bus", "taxi"]}
# The playground's page, in CSS pixels.
PAGE_SIZE = ViewportSize(width=1360, height=800)


def main() -> None:
    use_local_settings()
    FOLDER.mkdir(exist_ok=True)
    hide_warnings_of_libraries()
    for name, draw in track(PICTURES.items(), description="Drawing"):
        save(draw(), FOLDER / f"{name}.jpg")
    draw_playground()


def detect_and_visualize() -> list[UInt8Array]:
    return [picture("detect_and_visualize", image, prompts=PROMPTS) for image in samples("street", "zoo")]


def detect_visualize_export() -> list[UInt8Array]:
    with tempfile.TemporaryDirectory() as folder:
        places = {"target_directory": folder, "dataset_directory": f"{folder}/dataset"}
        return [
            picture("detect_visualize_export", image, prompts=PROMPTS, **places)
            for image in samples("zoo", "street")
        ]


def count_by_prompt() -> list[UInt8Array]:
    prompts = ["elephant", "tree", "car"]
    return [picture("count_by_prompt", image, prompts=prompts) for image in samples("zoo", "street")]


def count_by_class() -> list[UInt8Array]:
    prompts = {"animal": ANIMALS, **VEHICLES}
    return [picture("count_by_class", image, prompts=prompts) for image in samples("zoo", "street")]


def continue_if_class() -> list[UInt8Array]:
    """An image with the class, with boxes, and one without it, unchanged."""
    images = samples("street", "kitchen")
    results = run("continue_if_class", image=images, prompts=VEHICLES, class_name="vehicle")
    drawn = [result["visualization"] for result in results]
    return [image if one is None else one.numpy_image for image, one in zip(images, drawn, strict=True)]


def redact_by_prompt() -> list[UInt8Array]:
    (image,) = samples("street")
    results = run("redact_by_prompt", image=image, prompts=["car", "bus"], pixel_size=24)
    return [image, results[0]["redacted"].numpy_image]


def crop_and_prompt_again() -> list[UInt8Array]:
    """The stars among drawn shapes."""
    return [
        picture("crop_and_prompt_again", image, prompts="shape", part_prompts=["star"])
        for image in shapes(4_000_203, 4_000_205)
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
        images = samples("zoo", "street")
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
        run("alert_when_present", image=samples("zoo")[0], prompts=["elephant"], url=url)
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
        workflows_parameters={"prompts": ["car"], "line": [[320, 0], [320, 480]]},
        on_prediction=lambda result, _: frames.append(result["visualization"].numpy_image),
    )
    pipeline.start(use_main_thread=True)
    pipeline.join()
    return [frames[4], frames[-2]]


def prompts_per_image() -> list[UInt8Array]:
    # Colours follow the class ids, which are places in the list of an image.
    prompts = [["car"], ["elephant", "owl"]]
    results = run("prompts_per_image", image=samples("street", "zoo"), prompts=prompts)
    return [result["visualization"].numpy_image for result in results]


def find_everything() -> list[UInt8Array]:
    return [picture("find_everything", image) for image in samples("zoo")]


def attributes_of_each() -> list[UInt8Array]:
    """The colours of drawn shapes."""
    question = "what colour is this?"
    return [
        picture("attributes_of_each", image, prompts=["shape"], question=question)
        for image in shapes(4_000_201, 4_000_203)
    ]


def check_with_yes_or_no() -> list[UInt8Array]:
    """Two images, each with the answer under it."""
    images, question = samples("zoo", "kitchen"), "is there a lion?"
    results = [
        run("check_with_yes_or_no", image=image, question=question, url="http://127.0.0.1:9/")[0]
        for image in images
    ]
    return [
        with_text(image, [question, f"{result['answer']} ({result['probability']:.2f})"])
        for image, result in zip(images, results, strict=True)
    ]


def caption_and_tag() -> list[UInt8Array]:
    """Two images, each with its caption and tags under it."""
    images, tags = samples("street", "zoo"), ["lion", "elephant", "car", "tree"]
    with tempfile.TemporaryDirectory() as folder:
        results = run("caption_and_tag", image=images, tags=tags, target_directory=folder)
    return [
        with_text(image, [result["caption"], f"tags: {', '.join(result['tags'])}"])
        for image, result in zip(images, results, strict=True)
    ]


def count_by_pointing() -> list[UInt8Array]:
    return [picture("count_by_pointing", image, prompts=["car", "tree"]) for image in samples("street")]


def classify_crops() -> list[UInt8Array]:
    fields = {"prompts": ["animal"], "classes": ANIMALS, "question": "what is in the picture?"}
    return [picture("classify_crops", image, **fields) for image in samples("zoo")]


def with_text(image: UInt8Array, paragraphs: Sequence[str]) -> UInt8Array:
    """An image with text on white under it."""
    lines = [line for text in paragraphs for line in textwrap.wrap(text, 58)]
    below = np.full((26 * len(lines) + 16, image.shape[1], 3), 255, np.uint8)
    for number, line in enumerate(lines):
        place = (10, 26 * (number + 1))
        cv2.putText(below, line, place, cv2.FONT_HERSHEY_SIMPLEX, 0.6, (40, 40, 40), 1, cv2.LINE_AA)
    return np.vstack([image, below])


PICTURES: dict[str, Callable[[], list[UInt8Array]]] = {
    draw.__name__: draw
    for draw in (
        detect_and_visualize,
        detect_visualize_export,
        count_by_prompt,
        count_by_class,
        continue_if_class,
        redact_by_prompt,
        crop_and_prompt_again,
        tiled_small_objects,
        label_a_dataset,
        alert_when_present,
        track_and_count_video,
        prompts_per_image,
        find_everything,
        attributes_of_each,
        check_with_yes_or_no,
        caption_and_tag,
        count_by_pointing,
        classify_crops,
    )
}


def draw_playground() -> None:
    """The playground's page in Chromium: trying prompts, and the review of labels."""
    browser_file = shutil.which("chromium")
    if browser_file is None:
        raise SystemExit("the pictures of the playground need Chromium: apt-get install chromium")
    with (
        tempfile.TemporaryDirectory() as folder,
        running_server(Path(folder)) as server,
        sync_playwright() as p,
    ):
        browser = p.chromium.launch(executable_path=browser_file, chromium_sandbox=False)
        for show, is_dark in ((playground, False), (playground_review, True)):
            page = browser.new_page(viewport=PAGE_SIZE, color_scheme="dark" if is_dark else "light")
            page.goto(f"{server.address}/playground")
            page.wait_for_selector(".card img")
            show(page)
            page.screenshot(path=FOLDER / f"{show.__name__}.jpg", type="jpeg", quality=JPEG_QUALITY)
        browser.close()


def playground(page: Page) -> None:
    """Four images, three classes, one of them with two wordings and a threshold."""
    page.click(".samples button:nth-child(1)")
    page.click(".samples button:nth-child(2)")
    page.fill(".classes li:first-child .more", "taxi")
    page.press(".classes li:first-child .more", "Enter")
    detect(page)
    page.locator(".classes input[type=range]").nth(2).fill("0.5")
    page.locator("body").click(position={"x": 5, "y": 5})


def playground_review(page: Page) -> None:
    """Small pictures of many scenes; some boxes and an image are left out."""
    page.click("#clear")
    options = SceneOptions()
    for seed in range(4_000_200, 4_000_212):
        image = cv2.imencode(".png", np.ascontiguousarray(draw_scene(seed, options).image[..., ::-1]))[1]
        file = FilePayload(name=f"scene_{seed % 100:02}.png", mimeType="image/png", buffer=image.tobytes())
        page.set_input_files("#files", file)
    for _ in PROMPTS:
        page.locator(".classes .quiet").first.click()
    for name in ("circle", "square", "triangle", "star"):
        page.fill("#new-class", name)
        page.press("#new-class", "Enter")
    page.locator("#size").fill("220")
    detect(page)
    cards = page.locator(".card:has(.box)")
    for card in (1, 4):
        cards.nth(card).locator(".box").last.click(position={"x": 3, "y": 3})
    cards.nth(6).locator(".title input").uncheck()


def detect(page: Page) -> None:
    page.click("#run")
    page.wait_for_selector("#stop", state="hidden")
    page.wait_for_selector("#run:not(:disabled)", timeout=120_000)


def samples(*names: str) -> list[UInt8Array]:
    """Sample images (H, W, 3), BGR."""
    return [np.asarray(cv2.imread(str(SAMPLE_IMAGES / f"{name}.jpg")), np.uint8) for name in names]


def shapes(*seeds: int) -> list[UInt8Array]:
    """Drawn scenes of shapes (H, W, 3), BGR."""
    return [np.ascontiguousarray(draw_scene(seed).image[..., ::-1]) for seed in seeds]


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
