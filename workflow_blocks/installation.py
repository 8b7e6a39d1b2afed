"""Which distributions bring Inference. Several do, with the same modules, so this plugin requires none."""

from importlib.metadata import PackageNotFoundError, version

DISTRIBUTIONS = ("inference", "inference-core", "inference-cpu", "inference-gpu")

INFERENCE_MISSING = (
    "Inference is not installed; install one of its distributions: pip install inference (for a CPU), or "
    "pip install inference-gpu (for an NVIDIA GPU)"
)


def is_inference_missing(error: ImportError) -> bool:
    """Whether an import failed because there is no Inference."""
    return (error.name or "").partition(".")[0] == "inference"


CLUSTER_MISSING = "Ray is not installed: pip install 'moondream2-workflow-blocks[cluster]' adds it"


def is_cluster_missing(error: ImportError) -> bool:
    """Whether an import failed because there is no Ray, or nothing that Ray Data needs."""
    return (error.name or "").partition(".")[0] in ("ray", "pyarrow")


def server_requirement() -> str:
    """What adds the packages of the HTTP server to the installed distribution, and replaces nothing."""
    for name in DISTRIBUTIONS:
        try:
            return f"{name}[http]=={version(name)}"
        except PackageNotFoundError:
            continue
    return "inference[http]"
