"""Probabilities: computed once and kept, or found where another tool left them."""
