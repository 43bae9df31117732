"""A specialist, from a spec to a registered model."""
