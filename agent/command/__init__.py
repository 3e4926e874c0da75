"""Everything that concerns a command line."""
