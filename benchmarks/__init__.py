"""Measurements, each a command that prints figures side by side in one run."""
