import pytest

from workflow_blocks.bundled_model import DEMO_MODEL, demo_model_folder
from workflow_blocks.package_ids import PREFIX, folder_of, id_of_package


@pytest.mark.parametrize("folder", ["/models/a", "/models/caf\u00e9", "C:\\models\\a b"])
def test_the_id_of_a_package_is_its_folder(folder):
    assert id_of_package(folder) == folder
    assert folder_of(folder) is None


@pytest.mark.parametrize(
    "folder", ["/models/\u043c\u043e\u0434\u0435\u043b\u044c", "/\u6a21\u578b/a,b", "/e\u0301" * 200]
)
def test_a_folder_that_no_header_can_contain_has_an_id_that_one_can(folder):
    model_id = id_of_package(folder)

    assert model_id.isascii()
    assert model_id.count("/") == 1  # Inference splits ids there
    assert folder_of(model_id) == folder


def test_the_bundled_model_has_a_name_of_its_own():
    assert folder_of(DEMO_MODEL) == str(demo_model_folder())


@pytest.mark.parametrize(
    "model_id", ["", "sam2/hiera", PREFIX, f"{PREFIX}xyz", f"{PREFIX}ff", "moondream2/a"]
)
def test_other_ids_name_no_folder_of_this_plugin(model_id):
    assert not folder_of(model_id)
