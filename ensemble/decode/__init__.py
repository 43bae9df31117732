"""From probabilities to a crop's arrays, all classes of a voxel at once."""
