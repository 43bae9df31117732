"""A synthetic data set with truth: what `make demo` learns from and predicts."""
