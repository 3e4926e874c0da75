"""Runs compared: read from their folders, grouped, scored, drawn, and written as one page."""
