"""Compares Inference's own Moondream2 class with this plugin's, on one package and the same images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from workflow_blocks.evaluation.measure import Failure, Job, Measured, run_job
from workflow_blocks.prompt_text import normalized_prompt

# The file in a package from which Inference's class takes the model.
OWN_CODE = "hf_moondream.py"
# Inference's class computes in no other.
OWN_DTYPE = "bfloat16"


class ComparisonError(Exception):
    """Nothing can be compared; the message says why and how to fix it."""


@dataclass(frozen=True)
class Comparison:
    """What both classes found and used.

    `inference` is None, with the reason in `why_not`, if Inference's class cannot run. `plugin` is measured
    once in the dtype of Inference's class if that may run, and once in its default dtype if that is another.
    """

    package: Path
    images: Sequence[Path]
    prompts: Sequence[str]
    inference: Measured | None
    why_not: str | None
    plugin: list[Measured]


def compare_classes(
    package: Path,
    images: Sequence[Path],
    prompts: Sequence[str],
    output: Path,
    on_start: Callable[[str], None] = lambda title: None,
) -> Comparison:
    """Runs both classes, each in a process of its own.

    This plugin's runs first: it refuses a damaged package or an invalid prompt before any code of the package
    runs.

    Args:
        package: the folder of a package, whose Python Inference's class runs.
        images: files that OpenCV can read.
        prompts: what to search for.
        output: an existing folder, for the logs of the processes.
        on_start: called with the name of each class before it runs.

    Raises:
        ComparisonError: this plugin's class cannot run.
    """
    prompts = list(dict.fromkeys(map(normalized_prompt, prompts)))

    def run_plugin(dtype: str | None) -> Measured:
        on_start("this plugin" + (f" in {dtype}" if dtype else ""))
        log = output / (f"plugin_{dtype}.log" if dtype else "plugin.log")
        outcome = run_in_own_process(Job("plugin", package, images, prompts, dtype, log))
        if isinstance(outcome, Failure):
            raise ComparisonError(f"this plugin cannot run {package}: {outcome.message}; see {log}")
        return outcome

    if not (package / OWN_CODE).is_file():
        why_not = f"the package has no {OWN_CODE}, from which that class takes the model"
        return Comparison(package, images, prompts, None, why_not, [run_plugin(None)])
    plugin = [run_plugin(OWN_DTYPE)]
    on_start("Inference's class")
    log = output / "inference_class.log"
    own = run_in_own_process(Job("inference", package, images, prompts, None, log))
    if plugin[0].default_dtype != plugin[0].dtype:
        plugin.append(run_plugin(plugin[0].default_dtype))
    if isinstance(own, Failure):
        reason = f"{own.error}: {own.message}" if own.error else own.message
        return Comparison(package, images, prompts, None, f"{reason}; see {log}", plugin)
    return Comparison(package, images, prompts, own, None, plugin)


def run_in_own_process(job: Job) -> Measured | Failure:
    """Measures in a new process, so that memory, settings and the package's Python stay in it."""
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=run_job, args=(job, sender), daemon=True)
    process.start()
    sender.close()
    try:
        outcome: Measured | Failure | None = receiver.recv()
    except EOFError:
        outcome = None
    process.join()
    if outcome is None:
        return Failure("", f"its process ended with {_how_it_ended(process.exitcode)}")
    return outcome


def _how_it_ended(exit_code: int | None) -> str:
    if exit_code is None or exit_code >= 0:
        return f"exit code {exit_code}"
    out_of_memory = " (often too little memory)" if exit_code == -9 else ""
    return f"signal {-exit_code}{out_of_memory}"
