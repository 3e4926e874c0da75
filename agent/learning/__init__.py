"""The algorithm: the loss of an update, its gradient, the optimiser, the agent and the learner."""
