"""Vectorised Gymnasium environments: NumPy in, NumPy out."""
