"""The challenge's numbers."""
