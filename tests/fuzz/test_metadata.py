"""Whatever Zarr and OME metadata hold, what is read of them ends in values or in one line of this project."""

import os
from itertools import islice

import pytest

from tests.fuzz.metadata import READERS, damaged, inputs, refusals, write_corpus

COUNT = int(os.environ.get("FUZZ_INPUTS", "150"))
SEED = int(os.environ.get("FUZZ_SEED", "0"))


@pytest.mark.filterwarnings("ignore::zarr.errors.ZarrUserWarning")
def test_nothing_but_the_projects_own_errors_leaves_the_readers(tmp_path):
    files = write_corpus(tmp_path)
    assert not any(refusals(tmp_path, name) for name in READERS)
    refused = 0
    for number, damage in enumerate(islice(inputs(tmp_path, files, SEED), COUNT)):
        with damaged(tmp_path, damage):
            try:
                refused += refusals(tmp_path, damage.folder) > 0
            except Exception as error:
                error.add_note(f"input {number} of seed {SEED}: {damage.file}: {damage.content!r:.2000}")
                raise
    assert COUNT // 3 < refused < COUNT
