"""A search for settings: trials of ordinary runs, each in its own process, and one study that they share."""
