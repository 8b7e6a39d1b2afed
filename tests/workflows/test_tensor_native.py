"""The engine's tensor-native mode."""


def test_tests_pass_in_tensor_native_mode(tensor_native_run):
    """Those of `tensor_native.py`, and all definitions against what was drawn."""
    status, output = tensor_native_run.finish()

    assert status == 0, output[-3000:]
