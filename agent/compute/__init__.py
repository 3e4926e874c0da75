"""Ways to compute the same agent: PyTorch, NumPy, torch.compile, CUDA graphs. They do not change the algorithm."""
