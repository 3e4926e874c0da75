"""The network: observation and noise → values."""
