"""Datasets and benchmarks as data."""
