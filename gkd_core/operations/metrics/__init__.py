"""Metrics of the platform, for Prometheus."""
