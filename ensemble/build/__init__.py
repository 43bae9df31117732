"""One build, resumable, to a checked and recorded submission."""
