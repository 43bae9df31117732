"""Arrays on disk or in a bucket, with their grids."""
