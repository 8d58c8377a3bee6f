"""Registered models: gate, versions, champions, model card, when to retrain."""
