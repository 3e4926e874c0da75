"""The comparison of runs: it reads their folders, groups and scores them, draws plots, and writes one page."""
