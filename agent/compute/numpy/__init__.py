"""Small networks on a CPU by NumPy, with their derivatives by hand."""
