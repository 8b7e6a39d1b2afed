"""Model packages that a command takes."""

from pathlib import Path

from workflow_blocks.bundled_model import DEMO_MODEL, demo_model_folder


class PackageNotFoundError(Exception):
    """There is no such package; the message names the folder and the fix."""


def package_folder(model: str) -> Path:
    """The absolute folder of a package, or of the bundled model for its id.

    Raises:
        PackageNotFoundError: it does not exist, or is no model package.
    """
    from workflow_blocks.moondream2.checkpoint import CONFIG_FILE

    folder = demo_model_folder() if model == DEMO_MODEL else Path(model).expanduser()
    if not folder.is_dir():
        raise PackageNotFoundError(
            f"no package {model}; give its folder: see 'Compare before you switch' in docs/models.md"
        )
    if not (folder / CONFIG_FILE).is_file():
        raise PackageNotFoundError(f"{folder} is not a model package: it has no {CONFIG_FILE}")
    return folder.resolve()
