"""Arrays on disk or in a bucket, with their grids."""

from ensemble.storage.addresses import Location, foreign_protocol, is_url, plain
from ensemble.storage.chunk_cache import DEFAULT_EM_CACHE_BYTES
from ensemble.storage.chunk_keys import foreign_chunk, misnamed
from ensemble.storage.chunked_array import ChunkedArray, Encoding, scratch_array
from ensemble.storage.em_pyramids import EM
from ensemble.storage.fetching import EMFiles
from ensemble.storage.foreign_volume import ForeignVolume
from ensemble.storage.given_grid import GivenGrid
from ensemble.storage.metadata import NAMES_OF_AXES
from ensemble.storage.nodes import ZarrArray, open_node
from ensemble.storage.opening import em_place, open_em, open_volume, truth_place
from ensemble.storage.stored import StoredVolume, file_of, open_stored
from ensemble.storage.tissue import Tissue, find_tissue
from ensemble.storage.truth import check_ids, misplaced, open_truth, whole_truth
from ensemble.storage.unpacking import decoded, limit_bytes
from ensemble.storage.volume import Volume

__all__ = [
    "DEFAULT_EM_CACHE_BYTES",
    "EM",
    "NAMES_OF_AXES",
    "ChunkedArray",
    "EMFiles",
    "Encoding",
    "ForeignVolume",
    "GivenGrid",
    "Location",
    "StoredVolume",
    "Tissue",
    "Volume",
    "ZarrArray",
    "check_ids",
    "decoded",
    "em_place",
    "file_of",
    "find_tissue",
    "foreign_chunk",
    "foreign_protocol",
    "is_url",
    "limit_bytes",
    "misnamed",
    "misplaced",
    "open_em",
    "open_node",
    "open_stored",
    "open_truth",
    "open_volume",
    "plain",
    "scratch_array",
    "truth_place",
    "whole_truth",
]
