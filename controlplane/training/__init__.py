"""Runs trainers: the adapters of the training runner's port."""
