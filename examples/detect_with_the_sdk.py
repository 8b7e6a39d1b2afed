"""Detects with Moondream2 by Inference's HTTP client, and saves the picture with boxes and labels.

    python examples/detect_with_the_sdk.py photo.jpg --prompt dog --output boxes.jpg

It works with `workflow-blocks serve`, with every Inference server that has Moondream2, and with a Dedicated
Deployment: give its address with --url, and your key in the environment variable ROBOFLOW_API_KEY.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import supervision as sv
from inference_sdk import InferenceHTTPClient
from inference_sdk.http.errors import HTTPCallErrorError, HTTPClientError
from requests import RequestException


def detect(url: str, image_bgr: np.ndarray, model: str, prompt: str) -> list[dict[str, Any]]:
    """The predictions of a server; without them, the program ends with the reason."""
    client = InferenceHTTPClient(api_url=url, api_key=os.environ.get("ROBOFLOW_API_KEY"))
    try:
        result = client.infer_lmm(image_bgr, model_id=model, prompt=prompt)
    except HTTPCallErrorError as error:
        reason = " ".join(str(error.api_message or error.description).split())
        sys.exit(f"{url} answers with HTTP status {error.status_code}: {reason}")
    except (HTTPClientError, RequestException) as error:
        sys.exit(f"{url} is not the address of an Inference server that runs: {error}")
    if not isinstance(result, dict) or "predictions" not in result:
        sys.exit(f"{url} gave no boxes; is {model} a Moondream2?")
    predictions: list[dict[str, Any]] = result["predictions"]
    return predictions


def to_detections(predictions: list[dict[str, Any]]) -> sv.Detections:
    """Boxes from centres and sizes, with class ids, class names and confidences."""
    centres = np.array([(box["x"], box["y"]) for box in predictions]).reshape(-1, 2)
    sizes = np.array([(box["width"], box["height"]) for box in predictions]).reshape(-1, 2)
    return sv.Detections(
        xyxy=np.hstack([centres - sizes / 2, centres + sizes / 2]),
        class_id=np.array([box["class_id"] for box in predictions], dtype=int),
        confidence=np.array([box["confidence"] for box in predictions], dtype=float),
        data={"class_name": np.array([box["class"] for box in predictions], dtype=str)},
    )


def draw(image_bgr: np.ndarray, detections: sv.Detections) -> np.ndarray:
    """The image with boxes, and labels of class name and confidence."""
    names = detections.data["class_name"]
    labels = [f"{name} {score:.2f}" for name, score in zip(names, detections.confidence, strict=True)]
    with_boxes = sv.BoxAnnotator().annotate(image_bgr.copy(), detections)
    return sv.LabelAnnotator(smart_position=True).annotate(with_boxes, detections, labels=labels)


def main() -> None:
    parser = argparse.ArgumentParser(description="Detects with Moondream2 and draws the boxes.")
    parser.add_argument("image", help="an image file")
    parser.add_argument("--prompt", default="dog", help="what to find")
    parser.add_argument("--model", default="moondream2", help="a model id, such as moondream2-demo")
    parser.add_argument("--url", default="http://127.0.0.1:9001", help="the server's address")
    parser.add_argument("--output", default="boxes.jpg", help="where to save the picture")
    arguments = parser.parse_args()
    image = cv2.imread(arguments.image) if Path(arguments.image).is_file() else None
    if image is None:
        sys.exit(f"{arguments.image} is not an image file")
    if not Path(arguments.output).parent.is_dir() or not cv2.haveImageWriter(arguments.output):
        sys.exit(f"{arguments.output} cannot be written; give a .jpg or .png in a folder that exists")

    detections = to_detections(detect(arguments.url, image, arguments.model, arguments.prompt))
    for name, score, box in zip(
        detections.data["class_name"], detections.confidence, detections.xyxy, strict=True
    ):
        print(f"{name} {score:.3f} at {box.round().astype(int).tolist()}")
    if not cv2.imwrite(arguments.output, draw(image, detections)):
        sys.exit(f"{arguments.output} cannot be written")
    print(f"{len(detections)} boxes are drawn in {arguments.output}")


if __name__ == "__main__":
    main()
