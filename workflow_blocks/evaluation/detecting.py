"""Runs a workflow over labelled images, one after the other, and keeps what it finds on disk.

`detections.jsonl` has a line for each image that is done: so a later run goes on where this one stopped.
"""

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from workflow_blocks.datasets.atomic_files import write_atomically
from workflow_blocks.evaluation.searches import View, steps_of
from workflow_blocks.image_files import ImageFileError, decode_image
from workflow_blocks.inference_host.engine import make_engine, make_model_manager
from workflow_blocks.running.errors import RunError, definition_problem, reason_of
from workflow_blocks.running.parameters import ParameterError, check_values, image_input
from workflow_blocks.running.settings import check_settings
from workflow_blocks.running.sinks import check_sinks
from workflow_blocks.settings_error import SettingsError

SETTINGS_FILE = "evaluation.json"
DETECTIONS_FILE = "detections.jsonl"

_STEP = "detection"


@dataclass(frozen=True)
class Found:
    """What was found in one image: boxes (N, 4) in pixels, confidences (N,), names (N,), and seconds.

    A name is the class name that the workflow gave; of this plugin's own step, the index of a `View`.
    """

    boxes: npt.NDArray[np.float64]
    confidence: npt.NDArray[np.float64]
    names: list[str]
    seconds: float


@dataclass
class Detecting:
    """What has become of the images, by their index."""

    found: dict[int, Found] = field(default_factory=dict)
    failures: dict[int, str] = field(default_factory=dict)
    n_done_before: int = 0
    seconds: float = (
        0.0  # the time of the images that this run processed, with everything around the detector
    )


Detector = Callable[[npt.NDArray[np.uint8]], tuple[Any, Any, list[str]]]


def detection_workflow(views: Sequence[View], model: str) -> dict[str, Any]:
    """This plugin's detection step alone, once for each group of views, without limits of its own.

    Its classes are the indices of the views.
    """
    groups = list(steps_of(list(views)))
    return {
        "version": "1.0",
        "inputs": [{"type": "WorkflowImage", "name": "image"}],
        "steps": [
            {
                "type": "workflow_blocks/moondream2_prompt_detection@v1",
                "name": f"{_STEP}_{number}",
                "images": "$inputs.image",
                "prompts": {str(index): list(views[index].prompts) for index in group},
                "model_version": model,
                "confidence": 0.0,
            }
            for number, group in enumerate(groups)
        ],
        "outputs": [
            {
                "type": "JsonField",
                "name": f"{_STEP}_{number}",
                "selector": f"$steps.{_STEP}_{number}.predictions",
            }
            for number in range(len(groups))
        ],
    }


def make_detector(
    definition: dict[str, Any],
    parameters: Mapping[str, Any],
    output_name: str | None = None,
    joins_outputs: bool = False,
) -> Detector:
    """Compiles a workflow.

    Args:
        definition: a workflow with one image input and an output with detections.
        parameters: of the workflow.
        output_name: the output with detections; by default `predictions`, else the first that holds some.
        joins_outputs: whether to take the detections of all outputs together, as those of a
            `detection_workflow`.

    Returns:
        A function of an image (H, W, 3), BGR, that gives boxes (N, 4), confidences (N,) and class names.

    Raises:
        RunError: the workflow does not compile.
        ParameterError: a step refuses the value of a parameter.
        SettingsError: an environment variable of this plugin is invalid, or does not work on this machine.
    """
    check_settings()
    try:
        engine = make_engine(definition, make_model_manager())
        image_parameter = image_input(definition)
    except (ImportError, SettingsError):
        raise
    except Exception as error:  # some wrong definitions raise KeyError and the like
        raise RunError(f"the workflow cannot be run: {definition_problem(error, definition)}") from error
    check_values(engine._engine._compiled_workflow.input_substitutions, definition, parameters)

    def detect(image: npt.NDArray[np.uint8]) -> tuple[Any, Any, list[str]]:
        (outputs,) = engine.run(runtime_parameters={**parameters, image_parameter: image})
        check_sinks(definition, outputs)
        chosen = list(outputs.values()) if joins_outputs else [_predictions_in(outputs, output_name)]
        parts = [_from_engine(predictions) for predictions in chosen]
        return (
            np.concatenate([part[0] for part in parts]),
            np.concatenate([part[1] for part in parts]),
            [name for part in parts for name in part[2]],
        )

    return detect


def detect_in(
    images: Sequence[Path],
    settings: Mapping[str, Any],
    output: Path,
    make: Callable[[], Detector],
    again: bool = False,
    track: Callable[[Sequence[int]], Any] = lambda indices: indices,
) -> Detecting:
    """Detects in images that are not done yet; `settings` say what the detections come from.

    Args:
        images: files.
        settings: as JSON values; results of other settings are not mixed with these. They replace those of
            an earlier run with the first detections: a run that detects nothing, because the workflow has an
            error, changes nothing.
        output: a folder, created if it does not exist.
        make: makes the detector; called only if there is something to do.
        again: whether to forget the results of earlier runs.
        track: wraps the indices of the images, to show progress.

    Raises:
        RunError: the folder holds results of other settings, or cannot be written.
        RunError, ParameterError, SettingsError: see `make_detector`.
    """
    settings = json.loads(json.dumps(settings))
    done = _done_before(output, settings, again)
    result = Detecting()
    detect: Detector | None = None
    with contextlib.ExitStack() as opened:
        file: BinaryIO | None = None
        opened.callback(_free_unused, output)
        for index in track(range(len(images))):
            started = time.perf_counter()
            path = images[index]
            try:
                content = path.read_bytes()
                key = f"{hashlib.sha256(content).hexdigest()} {path.name}"
                if key in done:
                    result.found[index] = done[key]
                    result.n_done_before += 1
                    continue
                if detect is None:
                    detect = make()
                    _claim(output, settings)
                    started = time.perf_counter()
                before = time.perf_counter()
                boxes, confidence, names = detect(decode_image(content))
                found = Found(boxes, confidence, names, time.perf_counter() - before)
                if file is None:
                    file = opened.enter_context(_start(output, settings, again))
                _append(file, _line(key, found), output)
                result.found[index] = done[key] = found
            except (RunError, ParameterError, SettingsError):
                raise
            except ImageFileError as error:
                result.failures[index] = str(error)
            except Exception as error:  # whatever one image does, the others are processed
                result.failures[index] = reason_of(error)
            result.seconds += time.perf_counter() - started
    return result


def _predictions_in(outputs: Mapping[str, Any], name: str | None) -> Any:
    if name is not None:
        if name not in outputs:
            raise RunError(f"the workflow has no output {name!r}; it has {', '.join(outputs)}")
        return outputs[name]
    candidates = ["predictions", *outputs]
    for candidate in candidates:
        if candidate in outputs and _is_detections(outputs[candidate]):
            return outputs[candidate]
    raise RunError(f"no output of the workflow holds detections; it has {', '.join(outputs)}")


def _is_detections(value: Any) -> bool:
    import supervision as sv

    return isinstance(value, sv.Detections) or type(value).__name__ in ("Detections", "InstanceDetections")


def _from_engine(predictions: Any) -> tuple[Any, Any, list[str]]:
    from workflow_blocks.blocks.common.class_names import class_names_of
    from workflow_blocks.blocks.common.data_representation import from_engine

    detections = from_engine(predictions, "evaluation")
    boxes = np.asarray(detections.xyxy, np.float64).reshape(-1, 4)
    confidence = np.ones(len(boxes)) if detections.confidence is None else detections.confidence
    return boxes, np.asarray(confidence, np.float64), class_names_of(detections)


def _done_before(output: Path, settings: Any, again: bool) -> dict[str, Found]:
    """The images that are done, by content and name; none if everything is done again."""
    file = output / SETTINGS_FILE
    try:
        output.mkdir(parents=True, exist_ok=True)
        if file.is_file():
            has_results = (output / DETECTIONS_FILE).exists()
            if has_results and not again and json.loads(file.read_bytes()) != settings:
                raise RunError(
                    f"{output} holds an evaluation of other prompts, another model, another workflow, "
                    f"another dataset, other weights or other settings (see {file}); give another "
                    "--output, or --again to replace it"
                )
        elif any(output.iterdir()):
            raise RunError(f"{output} holds files that no evaluation has made; give another --output")
        return {} if again else _read(output / DETECTIONS_FILE)
    except OSError as error:
        raise _cannot_write(output, error) from error
    except ValueError as error:
        raise RunError(f"{file} is damaged; give another --output, or --again") from error


def _claim(output: Path, settings: Any) -> None:
    """Marks a new folder as that of an evaluation, before the steps of a workflow write there."""
    try:
        if not (output / SETTINGS_FILE).exists():
            _write_settings(output, settings)
    except OSError as error:
        raise _cannot_write(output, error) from error


def _free_unused(output: Path) -> None:
    """Takes the mark off a folder in which there is nothing else."""
    if [path.name for path in output.iterdir()] == [SETTINGS_FILE]:
        (output / SETTINGS_FILE).unlink()


def _start(output: Path, settings: Any, again: bool) -> BinaryIO:
    """Writes the settings. Returns the file to which detections are added."""
    try:
        if again:
            (output / DETECTIONS_FILE).unlink(missing_ok=True)
        _write_settings(output, settings)
        return (output / DETECTIONS_FILE).open("ab")
    except OSError as error:
        raise _cannot_write(output, error) from error


def _append(file: BinaryIO, line: bytes, output: Path) -> None:
    try:
        file.write(line)
        file.flush()
    except OSError as error:
        with contextlib.suppress(OSError):  # it would try to write the line again
            file.close()
        raise _cannot_write(output, error) from error


def _write_settings(output: Path, settings: Any) -> None:
    write_atomically(output / SETTINGS_FILE, f"{json.dumps(settings, indent=2)}\n".encode())


def _cannot_write(output: Path, error: OSError) -> RunError:
    return RunError(f"{output} cannot be written: {error.strerror}; give another --output")


def _read(file: Path) -> dict[str, Found]:
    done: dict[str, Found] = {}
    if not file.is_file():
        return done
    content = file.read_bytes()
    for line in content.splitlines():
        try:
            entry = json.loads(line)
            boxes = np.array(entry["boxes"], np.float64).reshape(-1, 4)
            confidence = np.array(entry["confidence"], np.float64)
            done[entry["image"]] = Found(boxes, confidence, entry["names"], entry["seconds"])
        except (ValueError, KeyError, TypeError):
            continue  # unfinished, because a run was killed
    if content and not content.endswith(b"\n"):
        with file.open("ab") as unfinished:
            unfinished.write(b"\n")
    return done


def _line(key: str, found: Found) -> bytes:
    entry = {
        "image": key,
        "boxes": found.boxes.tolist(),
        "confidence": found.confidence.tolist(),
        "names": found.names,
        "seconds": found.seconds,
    }
    return json.dumps(entry).encode() + b"\n"
