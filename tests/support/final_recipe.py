"""A recipe that says a bit of everything."""

from ensemble.core import manifest
from ensemble.core.manifest import Target

FINAL = """\
name: final
sources:
  mito_l:  {model: "models:/mito-l-4nm@champion", tta: mirror}
  multi_m: {model: "models:/multi-m-8nm@champion"}
  theirs:  {predictions: "{root}/predictions/{dataset}.zarr/{crop}/{class}"}
  old: {labels: "build/old/submission.zip"}
defaults: {source: multi_m, threshold: 0.5}
classes:
  mito:
    source: {mean: {mito_l: 3, multi_m: 1}}
    threshold: 0.46
    postprocess: [{watershed: {min_distance_nm: 40}}, {drop_small: {min_size_voxels: 50}}]
    when:
      - {voxel_size_nm: ">=16", source: multi_m}
      - {dataset: "jrc_mus*", crop: "55?", threshold: 0.3}
  er_mem_all: {source: {union: [er_mem, eres_mem, ne_mem]}}
  nuc: {source: old, weight: hard, postprocess: [keep_ids]}
empty: [golgi]
consistency: joint
"""


def target(crop: str) -> Target:
    return next(t for t in manifest.official_manifest() if t.crop == crop)
