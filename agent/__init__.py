"""A DQN that explores by learned noise (noisy networks)."""
