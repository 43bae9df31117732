"""The files of a registered version, by their names in its folder."""

WEIGHTS, CARD, GOLDEN = "model.safetensors", "card.yaml", "golden.npz"
