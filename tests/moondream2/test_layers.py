import pytest
import torch

from workflow_blocks.moondream2.layers import Linear


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [(1, 1), (8, 1), (4, 16), (1, 200)])
@pytest.mark.parametrize("width", [16, 1024])
def test_linear_gives_what_pytorchs_own_gives(dtype, rows, width):
    torch.manual_seed(0)
    own = torch.nn.Linear(width, 1024, dtype=dtype)
    ours = Linear(width, 1024, dtype=dtype)
    ours.load_state_dict(own.state_dict())
    x = torch.randn(*rows, width, dtype=dtype)

    torch.testing.assert_close(ours(x), own(x))
