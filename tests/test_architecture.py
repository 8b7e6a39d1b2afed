"""Imports point one way: `docs/architecture.md` draws it, this holds the code to it."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "workflow_blocks"

# Which folders of the package each folder may import. A block may also import `blocks/common`; of the runtime
# it may import only the sizes and limits, which do without torch.
MAY_IMPORT = {
    "__init__": {"blocks", "inference_host"},
    "__main__": {"commands"},
    "commands": {"running", "cluster", "evaluation", "blocks", "inference_host", "moondream2", "datasets"},
    "api": {"running", "evaluation", "inference_host", "datasets"},
    "cluster": {"running", "blocks", "inference_host", "datasets"},
    "running": {"blocks", "inference_host", "moondream2", "datasets"},
    "evaluation": {"running", "blocks", "inference_host", "moondream2", "datasets"},
    "blocks": {"moondream2", "datasets"},
    "inference_host": {"moondream2"},
    "moondream2": set(),
    "datasets": set(),
    "demo_model": {"inference_host"},
}
# Modules beside the folders: every folder may import them, and they import nothing of the package.
HELPERS = {path.stem for path in PACKAGE.glob("*.py")} - MAY_IMPORT.keys()
# These know nothing of Inference.
WITHOUT_INFERENCE = {"moondream2", "datasets"} | HELPERS
INFERENCE = re.compile(r"inference(_\w+)?|roboflow_workflows")
# Packages built by earlier releases name this module as the place of the model class.
EXCEPTION = ("moondream2/inference_model.py", "workflow_blocks.inference_host.model")

FILES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))


def imports_of(file: Path) -> Iterator[str]:
    """The modules that a file of the package imports, also inside functions, by their full names."""
    package = ["workflow_blocks", *file.parts[:-1]]
    for node in ast.walk(ast.parse((PACKAGE / file).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*start, *filter(None, [node.module])])
            for alias in node.names:
                submodule = ROOT.joinpath(*module.split("."), alias.name)
                is_module = submodule.is_dir() or submodule.with_suffix(".py").is_file()
                yield f"{module}.{alias.name}" if is_module else module


def is_allowed(file: Path, module: str) -> bool:
    if (str(file), module) == EXCEPTION:
        return True
    folder = file.parts[0].removesuffix(".py")
    package, *target = module.split(".")
    if package != "workflow_blocks":
        return folder not in WITHOUT_INFERENCE or not INFERENCE.fullmatch(package)
    target_folder = target[0] if target else "__init__"
    if folder == target_folder == "blocks":
        return target[1:2] in ([file.parts[1]], ["common"])
    if (folder, target_folder) == ("blocks", "moondream2"):
        return target[1:] == ["config"]
    return target_folder == folder or target_folder in MAY_IMPORT.get(folder, set()) | HELPERS


@pytest.mark.parametrize("file", FILES, ids=str)
def test_a_file_imports_only_what_its_folder_may(file):
    assert [module for module in imports_of(file) if not is_allowed(file, module)] == []


def test_the_exception_is_still_needed():
    file, module = EXCEPTION

    assert module in imports_of(Path(file))
