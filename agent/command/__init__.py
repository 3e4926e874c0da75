"""The command line: parsing, presets, imports of a user's modules, errors as sentences."""
