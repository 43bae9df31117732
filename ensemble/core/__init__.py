"""The nouns: grids and boxes of voxels, the challenge's classes and crops, codewords."""
