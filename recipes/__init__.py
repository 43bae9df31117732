"""Recipes that ship with the project; a recipe named without a folder is looked up here."""
