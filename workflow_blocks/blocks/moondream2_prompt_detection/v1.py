"""The block `workflow_blocks/moondream2_prompt_detection@v1`."""

from collections import defaultdict
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from inference.core.exceptions import InvalidModelIDError
from inference.core.workflows.core_steps.common.entities import StepExecutionMode
from inference.core.workflows.execution_engine.entities.base import Batch, OutputDefinition, WorkflowImageData
from inference.core.workflows.execution_engine.entities.types import (
    BOOLEAN_KIND,
    DICTIONARY_KIND,
    FLOAT_ZERO_TO_ONE_KIND,
    IMAGE_KIND,
    INTEGER_KIND,
    LIST_OF_VALUES_KIND,
    OBJECT_DETECTION_PREDICTION_KIND,
    ROBOFLOW_MODEL_ID_KIND,
    STRING_KIND,
    ImageInputField,
    Selector,
)
from inference.core.workflows.prototypes.block import (
    BlockResult,
    DependentResource,
    Runtime,
    Severity,
    WorkflowBlock,
    WorkflowBlockManifest,
    actual_restrictions_of,
    is_workflow_selector,
    roboflow_platform_model,
)
from inference.core.workflows.prototypes.models_provider import ModelsProvider
from inference_models.errors import (
    BaseInferenceModelsError,
    ForbiddenModelAccessError,
    ModelInputError,
    PaymentRequiredModelAccessError,
    RetryError,
    UnauthorizedModelAccessError,
    UsagePausedModelAccessError,
)
from pydantic import BeforeValidator, ConfigDict, Field
from roboflow_workflows.execution_engine.entities.workload import (
    Discovery,
    RuntimeRestriction,
    WorkOperation,
)
from roboflow_workflows.prototypes.platform_errors import (
    RoboflowAPIConnectionError,
    RoboflowAPINotNotFoundError,
    RoboflowAPITimeoutError,
)

from workflow_blocks.blocks.common.client_errors import (
    InvalidInputError,
    UnavailableError,
    as_client_error,
    shown,
)
from workflow_blocks.blocks.common.data_representation import to_engine
from workflow_blocks.blocks.common.images import to_bgr_uint8
from workflow_blocks.blocks.common.manifest_fields import unless_selector
from workflow_blocks.blocks.common.model_version import (
    DEMO_MODEL,
    RELEASED_MODEL,
    check_model_version,
    is_local,
    resolve_model_version,
)
from workflow_blocks.blocks.common.remote import remote_server
from workflow_blocks.blocks.moondream2_prompt_detection.predictions import (
    MAX_DETECTIONS,
    DetectionLimits,
    ImageDetections,
    attach_workflow_data,
    check_confidence,
    check_iou_threshold,
    check_max_detections,
    select_detections,
)
from workflow_blocks.blocks.moondream2_prompt_detection.prompts import (
    MAX_PROMPT_LENGTH,
    MAX_PROMPTS,
    parse_prompt,
    parse_prompts,
)
from workflow_blocks.blocks.moondream2_prompt_detection.remote_detection import detect_remotely

SHORT_DESCRIPTION = "Find whatever you can name in an image, with Moondream2."

LONG_DESCRIPTION = f"""
Detect objects by naming them: give an image and one or many prompts such as "red car" or "person with
a helmet", and get one object-detection prediction with a box for each thing found.

Each prompt is a class of its own: its words are the class name, its place in the list the class id.
The image is encoded once however many prompts there are. Boxes are clipped to the image and
duplicates are removed. `counts` tells how many boxes each prompt found, zeros included.

`model_version` takes Inference's own Moondream2 (`{RELEASED_MODEL}`), the path of a local model package,
or `{DEMO_MODEL}`: a small model that ships with the plugin, knows only drawn shapes ("red circle",
"blue star") and runs at once on a CPU.
"""

# How many decoder steps the model takes for one box.
TOKENS_PER_DETECTION = 3


def _check_prompts(value: object) -> object:
    """Prompts in a definition or from an input; what selectors in them stand for is checked later."""
    given = value if isinstance(value, list) else [value]
    literals = [item for item in given if not is_workflow_selector(item)]
    if len(literals) < len(given):
        for item in literals:
            parse_prompt(item)
        return value
    parse_prompts(value)
    return value


class BlockManifest(WorkflowBlockManifest):
    model_config = ConfigDict(
        json_schema_extra={
            "name": "Moondream2 Prompt Detection",
            "version": "v1",
            "short_description": SHORT_DESCRIPTION,
            "long_description": LONG_DESCRIPTION,
            "license": "Apache-2.0",
            "block_type": "model",
            "search_keywords": [
                "Moondream2",
                "moondream",
                "vision language model",
                "VLM",
                "open vocabulary",
                "zero-shot",
                "object detection",
                "prompt",
            ],
            "ui_manifest": {"section": "model", "icon": "fal fa-moon", "blockPriority": 5.4},
        },
        protected_namespaces=(),
    )
    type: Literal["workflow_blocks/moondream2_prompt_detection@v1"]
    images: Selector(kind=[IMAGE_KIND]) = ImageInputField
    prompts: Annotated[
        Selector(kind=[STRING_KIND, LIST_OF_VALUES_KIND]) | str | list[Selector(kind=[STRING_KIND]) | str],
        BeforeValidator(_check_prompts),
    ] = Field(
        title="Prompts",
        description="What to find: one prompt, a list of prompts, or a selector to either (the same for all "
        "images, or one value for each). A string is one prompt; commas do not split it. Repeats count "
        f"once. At most {MAX_PROMPTS} prompts of {MAX_PROMPT_LENGTH} characters.",
        examples=["red car", ["person", "person with a helmet"], "$inputs.prompts"],
    )
    model_version: Annotated[
        Selector(kind=[ROBOFLOW_MODEL_ID_KIND, STRING_KIND]) | str, BeforeValidator(check_model_version)
    ] = Field(
        default=RELEASED_MODEL,
        title="Model",
        description=f"The Moondream2 to run: Inference's own ({RELEASED_MODEL}), the path of a local model "
        f"package, or {DEMO_MODEL} for the small bundled model that knows drawn shapes.",
        examples=[RELEASED_MODEL, DEMO_MODEL, "$inputs.model_version"],
    )
    confidence: Annotated[
        float | Selector(kind=[FLOAT_ZERO_TO_ONE_KIND]), unless_selector(check_confidence)
    ] = Field(
        default=0.0,
        description="Boxes that the model is less sure of than this are dropped, 0 to 1. Inference's own "
        "Moondream2 gives every box 1.0; models that run on this plugin's runtime give a real score.",
        examples=[0.5, "$inputs.confidence"],
    )
    max_detections: Annotated[int | Selector(kind=[INTEGER_KIND]), unless_selector(check_max_detections)] = (
        Field(
            default=MAX_DETECTIONS,
            description=f"The most boxes to return for each prompt, 1 to {MAX_DETECTIONS}.",
            examples=[10, "$inputs.max_detections"],
        )
    )
    iou_threshold: Annotated[
        float | Selector(kind=[FLOAT_ZERO_TO_ONE_KIND]), unless_selector(check_iou_threshold)
    ] = Field(
        default=0.5,
        description="Two boxes that overlap more than this (intersection over union, 0 to 1) count as "
        "one object, and the surer one stays. 1 keeps all.",
        examples=[0.5, "$inputs.iou_threshold"],
    )
    class_agnostic_nms: bool | Selector(kind=[BOOLEAN_KIND]) = Field(
        default=False,
        description="Whether boxes of different prompts, too, are taken for one object when they overlap.",
        examples=[True, "$inputs.class_agnostic_nms"],
    )

    @classmethod
    def get_parameters_accepting_batches(cls) -> list[str]:
        return ["images", "prompts"]

    @classmethod
    def describe_outputs(cls) -> list[OutputDefinition]:
        return [
            OutputDefinition(name="predictions", kind=[OBJECT_DETECTION_PREDICTION_KIND]),
            OutputDefinition(name="counts", kind=[DICTIONARY_KIND]),
        ]

    @classmethod
    def get_execution_engine_compatibility(cls) -> str | None:
        return ">=1.3.0,<2.0.0"

    @classmethod
    def get_restrictions(cls) -> list[RuntimeRestriction]:
        return _RESTRICTIONS

    @classmethod
    def get_supported_model_variants(cls) -> list[str] | None:
        return [RELEASED_MODEL]

    def discover_dependent_resources(self) -> list[DependentResource] | None:
        if not is_workflow_selector(self.model_version) and is_local(self.model_version):
            return []
        return [roboflow_platform_model(model_id=self.model_version, model_id_resolver=_platform_model_id)]

    def discover_work_operations(self) -> list[WorkOperation]:
        return [WorkOperation.MODEL_INFERENCE]

    def get_actual_restrictions(
        self, *, ignore_environment_restrictions: bool = False
    ) -> Discovery[RuntimeRestriction]:
        return actual_restrictions_of(
            declared=_RESTRICTIONS,
            node_id=f"$steps.{self.name}",
            ignore_environment_restrictions=ignore_environment_restrictions,
        )


_RESTRICTIONS = [
    RuntimeRestriction(
        code="slow_without_gpu",
        severity=Severity.SOFT,
        note="The released Moondream2 takes many seconds for an image without a GPU. "
        f"The bundled {DEMO_MODEL} runs well on a CPU.",
        applies_to_runtimes=[Runtime.SELF_HOSTED_CPU],
        applies_to_step_execution_modes=[StepExecutionMode.LOCAL],
    ),
    RuntimeRestriction(
        code="hosted_api_has_no_moondream2",
        severity=Severity.SOFT,
        note="Remote step execution needs an Inference server that has Moondream2; "
        "Roboflow's hosted API has not.",
        applies_to_step_execution_modes=[StepExecutionMode.REMOTE],
    ),
]


def _platform_model_id(model_version: str) -> str | None:
    """What the engine may load ahead; a local package is loaded when the step runs."""
    return None if is_local(model_version) else model_version


class Moondream2PromptDetectionBlockV1(WorkflowBlock):
    """Finds what prompts name, in batches of images."""

    def __init__(
        self, model_manager: ModelsProvider, api_key: str | None, step_execution_mode: StepExecutionMode
    ) -> None:
        self._model_manager = model_manager
        self._api_key = api_key
        self._step_execution_mode = step_execution_mode

    @classmethod
    def get_init_parameters(cls) -> list[str]:
        return ["model_manager", "api_key", "step_execution_mode"]

    @classmethod
    def get_manifest(cls) -> type[WorkflowBlockManifest]:
        return BlockManifest

    def run(
        self,
        images: Batch[WorkflowImageData],
        prompts: Batch[str | list[str]] | list[Batch[str]],
        model_version: str,
        confidence: float,
        max_detections: int,
        iou_threshold: float,
        class_agnostic_nms: bool,
    ) -> BlockResult:
        try:
            limits = DetectionLimits(confidence, max_detections, iou_threshold, class_agnostic_nms)
            prompts_of_images = _prompts_of_images(prompts, len(images))
            arrays = [to_bgr_uint8(image.numpy_image) for image in images]
            server = remote_server(self._step_execution_mode, self._api_key)
            if server is None:
                model_id = self._load_model(model_version)
                found = self._detect(model_id, arrays, prompts_of_images, max_detections)
            else:
                encoded = [_jpeg_base64(array, image) for array, image in zip(arrays, images, strict=True)]
                model = check_model_version(model_version)
                found = detect_remotely(server, encoded, prompts_of_images, model, max_detections)
        except (InvalidInputError, ModelInputError) as error:
            raise as_client_error(error, self) from error
        except UnavailableError as error:
            raise as_client_error(error, self, error.status_code) from error
        return [
            _to_outputs(detections, image, image_prompts, limits)
            for detections, image, image_prompts in zip(found, images, prompts_of_images, strict=True)
        ]

    def _load_model(self, model_version: str) -> str:
        """Registers the model, and loads it unless it is loaded, and gives its id."""
        model_id = resolve_model_version(model_version)
        try:
            self._model_manager.add_model(model_id=model_id, api_key=self._api_key)
        except (RoboflowAPIConnectionError, RoboflowAPITimeoutError, RetryError) as error:
            raise UnavailableError(
                f"`model_version` {shown(model_id)} cannot be fetched: {_first_line(error)}; give a model "
                "that this server has, or let it reach Roboflow",
                503,
            ) from error
        except _ACCESS_ERRORS:
            raise  # the server tells what is wrong with the API key
        except (
            ValueError,
            OSError,
            InvalidModelIDError,
            RoboflowAPINotNotFoundError,
            BaseInferenceModelsError,
        ) as error:
            mend = (
                "mend the package"
                if is_local(model_id)
                else "give the id of a Moondream2 that this server can load"
            )
            raise InvalidInputError(
                f"`model_version` {shown(model_version)} cannot be loaded: {_first_line(error)}; {mend}"
            ) from error
        return model_id

    def _detect(
        self,
        model_id: str,
        images_bgr: list[npt.NDArray[np.uint8]],
        prompts_of_images: list[list[str]],
        max_detections: int,
    ) -> list[ImageDetections]:
        """Runs the model once for all images that share their prompts."""
        images_by_prompts: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for index, image_prompts in enumerate(prompts_of_images):
            images_by_prompts[tuple(image_prompts)].append(index)
        found: dict[int, ImageDetections] = {}
        for prompts, indices in images_by_prompts.items():
            results = self._model_manager.run_tensor_native_inference(
                model_id=model_id,
                images=[images_bgr[index] for index in indices],
                classes=list(prompts),
                input_color_format="bgr",
                max_new_tokens=TOKENS_PER_DETECTION * max_detections,
            )
            found.update(zip(indices, map(ImageDetections.from_model, results), strict=True))
        return [found[index] for index in range(len(images_bgr))]


_ACCESS_ERRORS = (
    UnauthorizedModelAccessError,
    PaymentRequiredModelAccessError,
    ForbiddenModelAccessError,
    UsagePausedModelAccessError,
)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].partition(" - VISIT ")[0]


def _prompts_of_images(prompts: Any, n_images: int) -> list[list[str]]:
    """Each image's prompts, from one value for each image or from a list of such values."""
    if isinstance(prompts, list):
        # A list in the definition that holds selectors: one batch for each place in it.
        return [
            parse_prompts([entry[index] if isinstance(entry, Batch) else entry for entry in prompts])
            for index in range(n_images)
        ]
    return [parse_prompts(value) for value in prompts]


def _jpeg_base64(bgr: npt.NDArray[np.uint8], image: WorkflowImageData) -> str:
    """An image for a request: as the caller sent it, unless that was not 8-bit BGR."""
    given = image.numpy_image
    if given.shape != bgr.shape or given.dtype != bgr.dtype:
        image = WorkflowImageData.copy_and_replace(origin_image_data=image, numpy_image=bgr)
    return str(image.base64_image)


def _to_outputs(
    found: ImageDetections, image: WorkflowImageData, prompts: list[str], limits: DetectionLimits
) -> dict[str, Any]:
    height, width = image.numpy_image.shape[:2]
    detections = select_detections(found, width, height, limits)
    per_prompt = np.bincount(detections.class_id, minlength=len(prompts))
    return {
        "predictions": to_engine(attach_workflow_data(detections, image, prompts)),
        "counts": dict(zip(prompts, per_prompt.tolist(), strict=True)),
    }
