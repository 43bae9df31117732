"""Planes as images: data URLs that show what they were made of."""

import base64
import io

import numpy as np
from PIL import Image

from ensemble.report.pictures import ADDED, COLOURS, PLAIN, REMOVED, changed_voxels, colour_of, grey, marked, outlines


def pixels(url: str) -> np.ndarray:
    head, _, content = url.partition(",")
    assert head == "data:image/webp;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))).convert("RGBA"))


def test_grey_values_are_shown_as_they_are():
    plane = np.full((32, 48), 40, np.uint8)
    plane[:, 24:] = 200
    shown = pixels(grey(plane))[..., 0].astype(int)
    assert shown.shape == plane.shape
    assert abs(shown[:, :20] - 40).max() <= 6 and abs(shown[:, 28:] - 200).max() <= 6


def test_an_object_has_a_line_of_its_own_colour_and_the_rest_is_seen_through():
    labels = np.zeros((20, 20), np.uint16)
    labels[4:12, 4:12], labels[15:18, 15:18] = 3, 4
    shown = pixels(outlines(labels))
    assert tuple(shown[4, 4]) == (*COLOURS[colour_of(3)], 255)
    assert tuple(shown[15, 15]) == (*COLOURS[colour_of(4)], 255)
    assert shown[8, 8, 3] == 48 and shown[0, 0, 3] == 0
    assert tuple(pixels(outlines(labels, PLAIN))[4, 4]) == (*PLAIN, 255)
    assert colour_of(3) != colour_of(4)


def test_what_was_removed_and_added_differ():
    removed, added = np.zeros((2, 12, 12), bool)
    removed[2, 2], added[9, 9] = True, True
    shown = pixels(changed_voxels(removed, added))
    assert tuple(shown[2, 2]) == (*REMOVED, 255) and tuple(shown[9, 9]) == (*ADDED, 255)
    assert shown[5, 5, 3] == 0


def test_the_chosen_object_stands_out():
    labels = np.zeros((24, 24), np.uint16)
    labels[2:10, 2:10], labels[14:22, 14:22] = 1, 2
    shown = pixels(marked(labels, labels == 1))
    assert (shown[6, 6, 3], shown[18, 18, 3]) == (48, 0)  # only it is tinted
    assert tuple(shown[14, 14, :3]) == tuple(PLAIN) != tuple(shown[2, 2, :3])
