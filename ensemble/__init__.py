"""From registered checkpoints and a YAML recipe to one consistent challenge submission."""
