"""One training loop for every stage, with its checkpoints and schedule."""
