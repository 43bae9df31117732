"""Trained models: what must be known of them, how their weights are read, and where they are kept."""
