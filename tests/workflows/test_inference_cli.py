"""The main workflow through Inference's own command line."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

from workflow_blocks.demo import SAMPLE_IMAGES, find_images
from workflow_blocks.local_engine import workflow_file


def test_prompts_are_given_on_the_command_line(tmp_path):
    command = [
        str(Path(sys.executable).parent / "inference"),
        "workflows",
        "process-images-directory",
        *("-i", str(SAMPLE_IMAGES), "-o", str(tmp_path / "out"), "-pt", "inference_package"),
        *("-ws", str(workflow_file("detect_visualize_export"))),
        *("--prompts", "red circle", "square", "--target_directory", str(tmp_path / "tables")),
        *("--dataset_directory", str(tmp_path / "dataset")),
    ]

    done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ), check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    samples = find_images(SAMPLE_IMAGES)
    for path in samples:
        result = json.loads((tmp_path / "out" / path.name / "results.json").read_text())
        assert list(result["counts"]) == ["red circle", "square"]
        assert (tmp_path / "out" / path.name / "visualization.jpg").is_file()
    rows = list(csv.DictReader((tmp_path / "out" / "aggregated_results.csv").open()))
    assert len(rows) == len(samples)
    assert list((tmp_path / "tables").glob("detections_*.csv"))
    assert len(list((tmp_path / "dataset" / "train").glob("*.jpg"))) == len(samples)
