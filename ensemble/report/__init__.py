"""What a build came to, for people."""
