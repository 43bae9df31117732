"""All that will be done, before anything is."""
