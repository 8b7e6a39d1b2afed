"""A PyTorch runtime for Moondream2's object detection. It knows nothing of Workflows."""
