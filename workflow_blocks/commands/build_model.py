"""The command `workflow-blocks build-model`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from workflow_blocks.commands.errors import exit_with_message

# A model's vocabulary may be somewhat larger than its tokenizer, not much.
FULL_VOCABULARY = 0.9


def build_model(
    weights: Annotated[
        str, typer.Option(metavar="DIR|HUB_ID", help="Published Moondream2 weights: a folder, or a hub id.")
    ] = "vikhyatk/moondream2",
    output: Annotated[Path, typer.Option(help="The package's folder, which must not exist yet.")] = Path(
        "moondream2"
    ),
    revision: Annotated[str | None, typer.Option(help="A hub revision.", show_default="2025-06-21")] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|DIR|HUB_ID",
            help="The tokenizer.",
            show_default="tokenizer.json beside the weights if it fits, else moondream/starmie-v1",
        ),
    ] = None,
) -> None:
    """Makes a local model package for Inference from published Moondream2 weights."""
    from workflow_blocks.inference_host.hub import HubError
    from workflow_blocks.inference_host.model_package import (
        PackageError,
        build_package,
        find_tokenizer,
        find_weights,
    )
    from workflow_blocks.moondream2.checkpoint import (
        CONFIG_FILE,
        CheckpointError,
        load_tokenizer,
        weight_files,
    )
    from workflow_blocks.moondream2.config import ConfigError, Moondream2Config
    from workflow_blocks.moondream2.revision import RevisionError

    with exit_with_message(CheckpointError, ConfigError, HubError, PackageError, RevisionError):
        folder = find_weights(weights, revision)
        n_bytes = sum(path.stat().st_size for path in weight_files(folder))
        tokenizer_file = find_tokenizer(tokenizer, folder)
        with _progress_bar() as progress:
            task = progress.add_task("Checking weights", total=n_bytes)
            linked = build_package(
                folder, tokenizer_file, output, lambda size: progress.update(task, advance=size)
            )
            progress.update(task, completed=n_bytes)
        config = Moondream2Config.from_file(output / CONFIG_FILE)
        n_tokens = load_tokenizer(output, config).get_vocab_size()
    how = "linked, not copied" if linked else "copied"
    console = Console(soft_wrap=True, highlight=False)
    console.print(
        f"Built {output} ({n_bytes / 1e9:.2f} GB of weights, {how}). To use it, set for Inference\n"
    )
    console.print("  export ALLOW_INFERENCE_MODELS_DIRECTLY_ACCESS_LOCAL_PACKAGES=True\n")
    console.print("and in a workflow definition\n")
    console.print(f'  "model_version": "{output.resolve()}"')
    if n_tokens < FULL_VOCABULARY * config.text.vocab_size:
        console.print(
            f"\nThe tokenizer has {n_tokens} tokens, and the model's vocabulary {config.text.vocab_size}: "
            "check that the tokenizer belongs to the model."
        )


def _progress_bar() -> Progress:
    return Progress(TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
