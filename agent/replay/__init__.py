"""The replay: transitions are stored, and drawn uniformly or by priority."""
