"""Students as programs for other runtimes, each held against PyTorch before it gets its name."""
