"""Which names are ids, and which are paths."""

import shutil

import pytest

from workflow_blocks.blocks.common.client_errors import InvalidInputError
from workflow_blocks.blocks.common.model_version import RELEASED_MODEL, is_local, resolve_model_version
from workflow_blocks.bundled_model import DEMO_MODEL, demo_model_folder
from workflow_blocks.model_ids import is_moondream2_id

IDS = ["moondream2", RELEASED_MODEL, "moondream2/moondream2-2b", "moondream2/v1.2"]


@pytest.fixture(autouse=True)
def working_directory(tmp_path, monkeypatch):
    """A working directory with a package for each name, id or not."""
    for name in (*IDS, DEMO_MODEL, "my_package", "folder/my_package", "moondream2/folder/my_package"):
        shutil.copytree(demo_model_folder(), tmp_path / "work" / name, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


@pytest.mark.parametrize("name", IDS)
def test_an_id_of_moondream2_is_never_a_path(name):
    assert not is_local(name)
    assert resolve_model_version(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "my_package",
        "folder/my_package",
        "./my_package",
        "../work/my_package",
        *(f"./{name}" for name in (*IDS, DEMO_MODEL)),
        "moondream2/folder/my_package",
        "moondream2/../moondream2",
        "moondream2/",
    ],
)
def test_a_path_is_a_package_by_its_absolute_path(working_directory, name):
    assert is_local(name)
    assert resolve_model_version(name) == str((working_directory / name).resolve())
    assert resolve_model_version(str(working_directory / name)) == str((working_directory / name).resolve())


@pytest.mark.parametrize("name", [DEMO_MODEL, str(demo_model_folder()), f"{demo_model_folder()}/"])
def test_the_bundled_model_has_one_id(name):
    assert is_local(name)
    assert resolve_model_version(name) == DEMO_MODEL


@pytest.mark.parametrize("name", ["./missing", "../missing", "/missing", "./moondream2/missing"])
def test_a_path_without_a_package_is_an_error(name):
    with pytest.raises(InvalidInputError, match=r"is not a model package: it has no model_config\.json"):
        resolve_model_version(name)


@pytest.mark.parametrize("name", ["coco/3", "missing", "some/model"])
def test_other_names_without_a_folder_are_ids(name):
    assert not is_local(name)
    assert resolve_model_version(name) == name


@pytest.mark.parametrize("name", [None, 3, "", "moondream2/", "moondream2/..", "moondream2/a/b"])
def test_other_names_are_no_ids_of_moondream2(name):
    assert not is_moondream2_id(name)
