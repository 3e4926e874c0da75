"""Heads, features → values: one file for each head, their base class, and the registry of their names."""
