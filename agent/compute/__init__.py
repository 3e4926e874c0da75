"""Ways to compute the same agent: torch, NumPy, compiled, CUDA graphs. None of them is part of the algorithm."""
