"""Parse, call, print."""

from ensemble.cli.program import main

__all__ = ["main"]
