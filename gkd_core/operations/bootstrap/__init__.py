"""Stores and accounts that a platform needs, created where they are missing."""
