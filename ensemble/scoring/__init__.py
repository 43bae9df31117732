"""The challenge's scores of label volumes: arrays in, numbers out; nothing here reads a file.

objects     the objects of a prediction, and how many voxels each shares with each of the truth's
matching    which predicted object stands for which true one
hausdorff   how far two objects are apart, exactly
instances   a crop of an instance class: the three above together
semantic    a crop of a semantic class
rules       what an object's distance is worth, by the name of the rules
metrics     what else the field measures
pooling     crops to classes, classes to the overall score
"""
