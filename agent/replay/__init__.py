"""The replay: stores transitions, and samples them uniformly or by priority."""
