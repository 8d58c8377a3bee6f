"""Prefect flows: when and where the recipe runs."""
