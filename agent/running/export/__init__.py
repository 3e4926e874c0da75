"""A saved agent as a file that needs nothing of this project: ONNX."""
