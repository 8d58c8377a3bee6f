"""Datasets: what their labels mean, where their files lie, how they are read, and a world to try them on."""
