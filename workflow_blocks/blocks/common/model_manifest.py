"""What the manifests of blocks that run Moondream2 have in common: the model, its weights and its limits."""

from inference.core.cache.air_gapped import has_cached_model_variant
from inference.core.env import ALLOW_INFERENCE_MODELS_DIRECTLY_ACCESS_LOCAL_PACKAGES
from inference.core.workflows.core_steps.common.entities import StepExecutionMode
from inference.core.workflows.prototypes.block import (
    DependentResource,
    Runtime,
    Severity,
    WorkflowBlockManifest,
    actual_restrictions_of,
    is_workflow_selector,
    roboflow_platform_model,
)
from roboflow_workflows.execution_engine.entities.workload import (
    Discovery,
    RuntimeRestriction,
    WorkOperation,
)

from workflow_blocks.blocks.common.model_version import RELEASED_MODEL, is_local
from workflow_blocks.bundled_model import DEMO_MODEL


class Moondream2Manifest(WorkflowBlockManifest):  # type: ignore[misc]
    """A manifest with the field `model_version`."""

    @classmethod
    def get_restrictions(cls) -> list[RuntimeRestriction]:
        return _RESTRICTIONS

    @classmethod
    def get_supported_model_variants(cls) -> list[str] | None:
        """Models whose cached weights this block needs without internet access; None if it needs none.

        The bundled model is always there, where the server loads local packages.
        """
        needs_none = ALLOW_INFERENCE_MODELS_DIRECTLY_ACCESS_LOCAL_PACKAGES
        if needs_none and not has_cached_model_variant([RELEASED_MODEL]):
            return None
        return [RELEASED_MODEL]

    def discover_dependent_resources(self) -> list[DependentResource] | None:
        model_version = getattr(self, "model_version")  # noqa: B009 - a field of each block, with its own text
        if not is_workflow_selector(model_version) and is_local(model_version):
            return []
        return [roboflow_platform_model(model_id=model_version, model_id_resolver=_platform_model_id)]

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
        note="The released Moondream2 takes many seconds per image without a GPU. "
        f"The bundled {DEMO_MODEL} runs well on a CPU.",
        applies_to_runtimes=[Runtime.SELF_HOSTED_CPU],
        applies_to_step_execution_modes=[StepExecutionMode.LOCAL],
    ),
    RuntimeRestriction(
        code="hosted_api_has_no_moondream2",
        severity=Severity.SOFT,
        note="Remote step execution needs an Inference server that has Moondream2; "
        "Roboflow's hosted API does not.",
        applies_to_step_execution_modes=[StepExecutionMode.REMOTE],
    ),
]


def _platform_model_id(model_version: str) -> str | None:
    """The model that the engine may load ahead of the run; None for local packages, loaded by the step."""
    return None if is_local(model_version) else model_version
