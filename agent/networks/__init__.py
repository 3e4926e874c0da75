"""Observation and noise → values."""
