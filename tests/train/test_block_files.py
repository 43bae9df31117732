"""What one process has computed another reads, and a full disk costs time alone."""

import multiprocessing
from pathlib import Path

import numpy as np

from ensemble.train.block_files import BlockFiles
from tests.support.annotated import noise


def arrays() -> tuple[np.ndarray, ...]:
    same = np.broadcast_to(np.full((1, 1, 1), 255, np.uint8), (4, 5, 6))
    return noise(4, 5, 6).astype(np.float32), same, noise(4, 5, 6, seed=1)


def never() -> tuple[np.ndarray, ...]:
    raise AssertionError("computed again")


def store(folder: Path) -> None:
    BlockFiles(folder, free_bytes=0).get("3-0.0.64", arrays)


def test_another_process_reads_what_one_has_computed(tmp_path):
    process = multiprocessing.get_context("spawn").Process(target=store, args=(tmp_path / "blocks",))
    process.start()
    process.join()
    read = BlockFiles(tmp_path / "blocks").get("3-0.0.64", never)
    for one, other in zip(read, arrays(), strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == other.dtype
    assert 0 in read[1].strides  # takes no memory


def test_without_room_blocks_are_computed_and_not_kept(tmp_path):
    blocks = BlockFiles(tmp_path / "blocks", free_bytes=1 << 60)
    made = []
    for _ in range(2):
        blocks.get("0-0.0.0", lambda: (made.append(1), arrays())[1])
    assert len(made) == 2
    assert not (tmp_path / "blocks").exists()


def test_a_folder_that_cannot_be_made_is_no_error(tmp_path):
    blocks = BlockFiles(tmp_path / "gone" / "blocks", free_bytes=0)
    np.testing.assert_array_equal(blocks.get("0-0.0.0", arrays)[2], arrays()[2])
