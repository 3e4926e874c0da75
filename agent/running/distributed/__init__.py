"""Collection by actors on Ray: the only package that knows it."""
