"""The ids by which Inference's model manager knows local packages."""

from workflow_blocks.bundled_model import DEMO_MODEL, demo_model_folder

# Inference gives these ids to this plugin's adapter. The name of the folder follows in hexadecimal.
PREFIX = "moondream2/package-"


def id_of_package(folder: str) -> str:
    """The id of a package: its folder, or an id of this plugin if the name is not Latin.

    Inference's server names the models of a request in a header of its answer, and fails if it cannot.
    """
    try:
        folder.encode("latin-1")
    except UnicodeEncodeError:
        return PREFIX + folder.encode().hex()
    return folder


def folder_of(model_id: str) -> str | None:
    """The folder of the package with an id of this plugin; None for other ids."""
    if model_id == DEMO_MODEL:
        return str(demo_model_folder())
    if not model_id.startswith(PREFIX):
        return None
    try:
        return bytes.fromhex(model_id.removeprefix(PREFIX)).decode()
    except ValueError:
        return None
