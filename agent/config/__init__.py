"""The options, typed and checked."""
