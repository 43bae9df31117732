"""The zip: written by us, read without trusting anyone, checked."""
