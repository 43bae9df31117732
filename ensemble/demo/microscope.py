"""What a FIB-SEM would make of a toy tissue: grey levels, texture, blur and noise."""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter, gaussian_filter1d
from threadpoolctl import threadpool_limits

from ensemble.demo.scene import WORKERS, Painted
from ensemble.demo.shapes import ATOM, Axes, Ripples
from ensemble.support import in_threads

# Grey level of each atom, and how strongly it is mottled (tens of nm) and grainy (a few nm), in grey levels.
TISSUE = {
    "ecs": (176, 3, 4),
    "pm": (78, 4, 6),
    "cyto": (146, 8, 15),
    "mito_mem": (72, 3, 5),
    "mito_lum": (116, 5, 6),
    "ves_mem": (62, 3, 5),
    "ves_lum": (210, 3, 4),
    "ld_mem": (70, 2, 3),
    "ld_lum": (216, 1, 1),
    "er_mem": (88, 4, 6),
    "er_lum": (150, 4, 6),
    "ne_mem": (78, 4, 6),
    "ne_lum": (168, 3, 5),
    "np_out": (88, 3, 8),
    "np_in": (122, 3, 8),
    "hchrom": (96, 8, 10),
    "echrom": (128, 8, 10),
    "nucpl": (154, 6, 8),
}
MOTTLE_NM = (25.0, 80.0)
GRAIN_NM = 3.5
CRISTAE_NM = 34.0
CRISTAE_DEPTH = 26.0
NOISE = 9.0
NOISE_VOXELS = 0.6
PLANE_JITTER = 1.5
SLAB_PLANES = 32
GRAIN_STREAM, NOISE_STREAM, PLANE_STREAM, MOTTLE_STREAM = range(4)

_GREY, _MOTTLE, _GRAIN = (
    np.array([TISSUE.get(name, (0, 0, 0))[column] for name in ATOM], np.float32) for column in range(3)
)


@dataclass(frozen=True)
class Microscope:
    """How an instrument sets its contrast: grey levels times ``gain`` plus ``offset``."""

    gain: float = 1.0
    offset: float = 0.0


def render(painted: Painted, key: tuple[int, ...], microscope: Microscope) -> np.ndarray:
    """EM of a painted scene, uint8 from 1 to 255; ``key`` seeds texture and noise."""
    voxel_nm = np.array(painted.grid.voxel_size_nm)
    blur = (2.0 + voxel_nm / 4) / voxel_nm
    halo = int(np.ceil(3 * (blur[0] + GRAIN_NM / voxel_nm[0])))
    planes = painted.grid.shape[0]
    waves = painted.scene.stripes(CRISTAE_NM)
    mottle = Ripples.draw(np.random.default_rng((*key, MOTTLE_STREAM)), 24, MOTTLE_NM, 1.0)
    em = np.empty(painted.grid.shape, np.uint8)

    def fill(start: int) -> None:
        stop = min(start + SLAB_PLANES, planes)
        low, high = max(start - halo, 0), min(stop + halo, planes)
        slab = painted.sub(painted.grid.box.with_axis(0, low, high))
        grain = _noise(slab, (*key, GRAIN_STREAM), low, GRAIN_NM / voxel_nm)
        grey = _tissue(slab, grain, mottle, waves)
        grey = gaussian_filter(grey, blur, mode="nearest", truncate=3)
        grey += NOISE * _noise(slab, (*key, NOISE_STREAM), low, np.full(3, NOISE_VOXELS))
        grey += PLANE_JITTER * _planes((*key, PLANE_STREAM), low, (high - low, 1, 1))
        seen = microscope.gain * grey[start - low : stop - low] + microscope.offset
        em[start:stop] = np.clip(np.rint(seen), 1, 255)

    with threadpool_limits(1):
        list(in_threads(WORKERS, fill, range(0, planes, SLAB_PLANES)))
    return em


def _tissue(slab: Painted, grain: np.ndarray, mottle: Ripples, waves: np.ndarray) -> np.ndarray:
    """Grey before blur: each atom's level and texture, and cristae across the mitochondria."""
    z_nm, y_nm, x_nm = (slab.grid.centres_nm(axis) - slab.scene.corner_nm[axis] for axis in range(3))
    axes: Axes = (z_nm, y_nm, x_nm)
    patches = mottle.on(axes)
    grey = _GREY[slab.atoms] + _MOTTLE[slab.atoms] * patches + _GRAIN[slab.atoms] * grain
    lumen = np.nonzero(slab.atoms == ATOM["mito_lum"])
    z, y, x = (axis[index] for axis, index in zip(axes, lumen, strict=True))
    along = np.einsum("in,ni->n", np.stack([z, y, x]), waves[slab.owners[lumen]])
    grey[lumen] -= CRISTAE_DEPTH * np.clip(1.6 * np.cos(along + 1.3 * patches[lumen]), -1, 1)
    return np.asarray(grey)


def _noise(slab: Painted, key: tuple[int, ...], first: int, sigma_voxels: np.ndarray) -> np.ndarray:
    """Gaussian noise of standard deviation 1, correlated over ``sigma_voxels``."""
    white = _planes(key, first, slab.grid.shape)
    gain = 1.0
    for sigma in sigma_voxels:
        impulse = np.zeros(65)
        impulse[32] = 1
        gain /= np.sqrt(np.sum(gaussian_filter1d(impulse, sigma, truncate=3) ** 2))
    return gaussian_filter(white, sigma_voxels, mode="nearest", truncate=3) * np.float32(gain)


def _planes(key: tuple[int, ...], first: int, shape: tuple[int, ...]) -> np.ndarray:
    """White noise; each plane is drawn from its own number, so that it does not depend on its slab."""
    draws = (np.random.default_rng((*key, first + plane)) for plane in range(shape[0]))
    return np.stack([rng.standard_normal(shape[1:], np.float32) for rng in draws])
