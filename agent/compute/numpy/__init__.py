"""Small networks on a CPU in NumPy, with derivatives that are written by hand."""
