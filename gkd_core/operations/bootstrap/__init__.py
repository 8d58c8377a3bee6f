"""Stores and accounts that a platform needs, made where they are not there."""
