"""What is opened to be read, or told in one line."""

import pytest
import zarr

from ensemble.storage.nodes import exist, open_node
from ensemble.support.errors import VolumeError
from tests.storage.test_volume import GRID
from tests.support.volumes import noise, write_array


def test_an_array_opens_and_what_is_none_is_told(tmp_path):
    place = write_array(tmp_path / "a", noise(GRID.shape), GRID)
    assert isinstance(open_node(place), zarr.Array)
    for other, message in ((tmp_path / "b", "there is no such array"), (tmp_path, "no Zarr array or group here")):
        with pytest.raises(VolumeError, match=message):
            open_node(other)


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_files_are_found_under_a_path_and_under_a_url(tmp_path, scheme):
    place = write_array(tmp_path / "a", noise(GRID.shape), GRID)
    assert exist(f"{scheme}{place}", ["1.0.2", "1.0.3"]) == [True, False]
