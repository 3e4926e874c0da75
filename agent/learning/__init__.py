"""The algorithm: when the agent learns, its loss, its gradient, its optimiser."""
