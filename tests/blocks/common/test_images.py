import numpy as np
import pytest

from workflow_blocks.blocks.common.client_errors import InvalidInputError
from workflow_blocks.blocks.common.images import to_bgr_uint8

BGR = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
GREY = BGR[..., 0]


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        pytest.param(BGR, BGR, id="BGR"),
        pytest.param(GREY, np.dstack([GREY] * 3), id="grey"),
        pytest.param(GREY[..., None], np.dstack([GREY] * 3), id="grey with a channel"),
        pytest.param(np.dstack([BGR, GREY]), BGR, id="BGRA"),
        pytest.param(BGR.astype(np.uint16) * 257, BGR, id="16 bits"),
        pytest.param(GREY > 5, np.dstack([(GREY > 5) * np.uint8(255)] * 3), id="boolean"),
        pytest.param(BGR[:1, :1], BGR[:1, :1], id="one pixel"),
        pytest.param(BGR[::-1, ::-1], BGR[::-1, ::-1], id="not contiguous"),
    ],
)
def test_to_bgr_uint8(image, expected):
    converted = to_bgr_uint8(image)

    np.testing.assert_array_equal(converted, expected)
    assert converted.dtype == np.uint8
    assert converted.flags.c_contiguous


@pytest.mark.parametrize(
    ("image", "problem"),
    [
        pytest.param(np.zeros((0, 5, 3), np.uint8), r"\(0, 5, 3\)", id="no rows"),
        pytest.param(np.zeros(5, np.uint8), r"\(5,\)", id="a line"),
        pytest.param(np.zeros((5, 5, 2), np.uint8), r"\(5, 5, 2\)", id="two channels"),
        pytest.param(np.zeros((1, 5, 5, 3), np.uint8), r"\(1, 5, 5, 3\)", id="a batch"),
        pytest.param(np.zeros((5, 5, 3), np.float32), "float32", id="floats"),
    ],
)
def test_to_bgr_uint8_names_invalid_arrays(image, problem):
    with pytest.raises(InvalidInputError, match=f"`images`.*{problem}"):
        to_bgr_uint8(image)
