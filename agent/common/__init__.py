"""Everything that every package may need; imports nothing of this project."""
