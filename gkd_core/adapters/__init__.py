"""Thin adapters to Ray, MLflow, DVC and Prefect: nothing else in the package imports those."""
