"""A synthetic data set with exact truth, and the whole job on it."""
