"""Puts a YOLO that Ultralytics exported as TorchScript into a folder that Inference loads offline.

    python package_a_yolo.py best.torchscript dataset/data.yaml my_yolo --size 160

With ALLOW_INFERENCE_MODELS_DIRECTLY_ACCESS_LOCAL_PACKAGES=True, the path of the folder is a `model_id`.
"""

import argparse
import json
import shutil
from pathlib import Path

import yaml

# Export with this batch size, the default of Ultralytics.
BATCH_SIZE = 1


def package(weights: Path, data: Path, folder: Path, size: int, architecture: str = "yolov11") -> None:
    """Writes the folder.

    Args:
        weights: what `yolo export format=torchscript imgsz=SIZE` wrote.
        data: the dataset's data.yaml, for the class names.
        folder: created if it does not exist.
        size: the side of the model's input in pixels, as exported.
        architecture: Inference's name of it: yolov8, yolov9, yolov11.
    """
    names = yaml.safe_load(data.read_text(encoding="utf-8"))["names"]
    names = [names[index] for index in sorted(names)] if isinstance(names, dict) else names
    model = {
        "model_architecture": architecture,
        "task_type": "object-detection",
        "backend_type": "torch-script",
    }
    inference = {
        "network_input": {
            "training_input_size": {"height": size, "width": size},
            "dynamic_spatial_size_supported": False,
            "color_mode": "rgb",
            "resize_mode": "letterbox",
            "padding_value": 114,
            "input_channels": 3,
            "scaling_factor": 255,
        },
        "forward_pass": {"static_batch_size": BATCH_SIZE},
        "post_processing": {"type": "nms", "fused": False},
    }
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(weights, folder / "weights.torchscript")
    (folder / "class_names.txt").write_text("\n".join(names), encoding="utf-8")
    (folder / "model_config.json").write_text(json.dumps(model, indent=2), encoding="utf-8")
    (folder / "inference_config.json").write_text(json.dumps(inference, indent=2), encoding="utf-8")


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=package.__doc__)
    parser.add_argument("weights", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", type=int, default=640)
    parser.add_argument("--architecture", default="yolov11")
    options = parser.parse_args()
    package(options.weights, options.data, options.folder, options.size, options.architecture)


if __name__ == "__main__":
    main()
