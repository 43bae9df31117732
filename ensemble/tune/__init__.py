"""Choosing by the official score: routes, and weights to average."""
