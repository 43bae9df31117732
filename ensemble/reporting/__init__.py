"""The report of a build: one page that opens from disk, and the same facts as JSON.

``facts``     what the page says, gathered from what the build left
``pictures``  EM, objects and probabilities through the busiest part of each array
``gallery``   the pictures of every array
``closeups``  objects and changes worth a look
``charts``    sizes of objects
``page``      the page itself
"""
