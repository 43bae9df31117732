"""What a recipe can name, and the objects it works on."""
