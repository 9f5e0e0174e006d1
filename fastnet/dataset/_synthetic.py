"""Synthetic images with the shape of CIFAR's, for use without CIFAR-100.

An image shows a cloudy scene with an object of three ellipses in front of it. The class fixes the object's form and
stripes, and roughly the colours of scene and object. Position, size, mirroring, pose, colours and light vary between images.
The amount of variation was tuned so that the chapter's network and learning rates behave as on photographs.

The same seed gives the same bytes on every machine. The code uses uniform draws of a named bit generator, and then only
element-wise ``+ - * /``. It does not use exp or sin, whose last bit depends on the C library, nor sums or matrix products,
whose order depends on the processor.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fastnet.base import checks
from fastnet.dataset import _data
from fastnet.dataset._data import Data

SIDE = 32
N_PARTS = 3
CHUNK = 250  # images made at a time, so that their planes stay in the cache

# Amplitudes, in units of CONTRAST grey levels.
CLOUDS, HAZE = 0.8, 0.3  # brightness and colour of the clouds
SCENE, OBJECT, PART = 0.25, 0.35, 0.7  # the colour's variation between classes
COLOUR_JITTER, LIGHT_JITTER = 0.46, 0.5  # the random variation of colours, which makes the set hard
STRIPES, GRAIN, LIGHTING = 0.25, 0.1, 0.15
CONTRAST = 110.0

# Geometry, in units of half the image's side.
SHIFT, POSE, ZOOM = 5 / 16, 0.12, (0.7, 1.25)


class Classes(NamedTuple):
    """The properties that the images of a class share; the first axis is the class."""

    sky: np.ndarray  # (c, 3) colours
    ground: np.ndarray
    colour: np.ndarray
    part_colour: np.ndarray  # (c, parts, 3)
    centre: np.ndarray  # (c, parts, 2) ellipses: x and y of the centre, width and height, slant
    extent: np.ndarray
    slant: np.ndarray  # (c, parts)
    stripes: np.ndarray  # (c, 2) stripes per unit of length along x and y


def synthetic(
    seed: int, n_classes: int = 5, n_train: int = 2500, n_test: int = 500, dtype: npt.DTypeLike = np.float64,
    images: bool = False,
) -> Data:
    """Make a data set shaped like the course's subset of CIFAR-100.

    Parameters
    ----------
    seed : int
        The seed that chooses classes and images; the same seed gives the same data on every machine.
    n_classes : int
        The number of classes, 2 to 100. All classes have the same size, up to one image.
    n_train, n_test : int
        The numbers of training and of test images.
    dtype : dtype-like
        float32 or float64.
    images : bool
        Return pixels as images, (n, 3, 32, 32), as convolutions take them.

    Returns
    -------
    Data
        ``(x_train, y_train), (x_test, y_test)``: pixels (n, 3072) within -0.5 .. 0.5, channel by channel as in CIFAR's
        files; one-hot training labels; integer test labels.

    Examples
    --------
    >>> (x_train, y_train), (x_test, y_test) = synthetic(seed=1)
    >>> x_train.shape, y_train.shape, x_test.shape, y_test.shape
    ((2500, 3072), (2500, 5), (500, 3072), (500,))
    """
    seed = _data.seed("synthetic", seed)
    n_classes = _data.n_classes("synthetic", n_classes)
    n_train = checks.whole_number("synthetic", "n_train", n_train, "The course's subset has 2500 images.")
    n_test = checks.whole_number("synthetic", "n_test", n_test, "The course's subset has 500 images.")
    type_ = _data.dtype("synthetic", dtype)
    # Each part has its own stream, so that n_train changes neither the classes nor the test images.
    classes = _draw_classes(_generator(seed, 0), n_classes)
    train = _draw_set(_generator(seed, 1), classes, n_train)
    test = _draw_set(_generator(seed, 2), classes, n_test)
    names = [f"figure {label}" for label in range(n_classes)]
    data = _data.from_pixels(train, test, names, f"synthetic images (seed {seed})", type_)
    return data.as_images() if images else data


def _generator(seed: int, stream: int) -> np.random.Generator:
    # default_rng may become another generator in a later NumPy; PCG64's stream does not change.
    return np.random.Generator(np.random.PCG64([seed, stream]))


def _uniform(rng: np.random.Generator, low: float, high: float, shape: tuple[int, ...]) -> np.ndarray:
    draw = rng.random(shape, dtype=np.float32)
    draw *= np.float32(high - low)
    draw += np.float32(low)
    return draw


def _draw_classes(rng: np.random.Generator, c: int) -> Classes:
    return Classes(
        sky=_uniform(rng, -SCENE, SCENE, (c, 3)),
        ground=_uniform(rng, -SCENE, SCENE, (c, 3)),
        colour=_uniform(rng, -OBJECT, OBJECT, (c, 3)),
        part_colour=_uniform(rng, -PART / 2, PART / 2, (c, N_PARTS, 3)),
        centre=_uniform(rng, -0.45, 0.45, (c, N_PARTS, 2)),
        extent=_uniform(rng, 0.2, 0.6, (c, N_PARTS, 2)),
        slant=_uniform(rng, -0.8, 0.8, (c, N_PARTS)),
        stripes=_uniform(rng, -8.0, 8.0, (c, 2)),
    )


def _draw_set(rng: np.random.Generator, classes: Classes, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw n images, uint8 (n, 3072), and their labels (n,), shuffled."""
    labels = np.arange(n) % len(classes.sky)
    labels = labels[np.argsort(rng.random(n), kind="stable")]
    pixels = np.empty((n, 3, SIDE, SIDE), np.uint8)
    for start in range(0, n, CHUNK):
        stop = min(start + CHUNK, n)
        pixels[start:stop] = _draw_images(rng, classes, labels[start:stop])
    return pixels.reshape(n, -1), labels


def _draw_images(rng: np.random.Generator, classes: Classes, labels: np.ndarray) -> np.ndarray:
    """Draw an image for each label: scene, object, light. Returns grey levels 0 .. 255, (n, 3, side, side)."""
    n = len(labels)
    axis = ((np.arange(SIDE) - (SIDE - 1) / 2) / (SIDE / 2)).astype(np.float32)
    image = _scene(rng, classes, labels, axis)
    _draw_object(rng, image, classes, labels, axis)
    image *= _uniform(rng, 1 - LIGHTING, 1 + LIGHTING, (n, 1, 1, 1))
    image += _uniform(rng, -LIGHTING, LIGHTING, (n, 1, 1, 1))
    image += _uniform(rng, -GRAIN, GRAIN, image.shape)
    image *= np.float32(CONTRAST)
    image += np.float32(128)
    return np.clip(image, 0, 255, out=image)


def _scene(rng: np.random.Generator, classes: Classes, labels: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """Draw clouds over a sky and a ground that meet at a blurred horizon."""
    n = len(labels)
    image = _clouds(rng, n, channels=3, roughness=0.0) * np.float32(HAZE)
    image += _clouds(rng, n, channels=1, roughness=0.6) * np.float32(CLOUDS)
    horizon = _uniform(rng, -0.3, 0.3, (n, 1))
    ground_share = np.clip((axis - horizon) * 2 + np.float32(0.5), 0, 1)[:, None, :, None]
    sky = classes.sky[labels] + _jitter(rng, n)
    ground = classes.ground[labels] + _jitter(rng, n)
    image += sky[:, :, None, None] * (1 - ground_share) + ground[:, :, None, None] * ground_share
    return image


def _jitter(rng: np.random.Generator, n: int) -> np.ndarray:
    """Draw the random part of a colour, tint and brightness: (n, 3)."""
    return _uniform(rng, -COLOUR_JITTER, COLOUR_JITTER, (n, 3)) + _uniform(rng, -LIGHT_JITTER, LIGHT_JITTER, (n, 1))


def _clouds(rng: np.random.Generator, n: int, channels: int, roughness: float) -> np.ndarray:
    """Draw a 3x3 grid, then double it until it fills the image, adding detail `roughness` times weaker each time."""
    grid = _uniform(rng, -1.0, 1.0, (n, channels, 3, 3))
    detail = 1.0
    while grid.shape[-1] <= SIDE:
        size = 2 * grid.shape[-1] - 1
        fine = np.empty((n, channels, size, size), np.float32)
        fine[..., ::2, ::2] = grid
        fine[..., 1::2, ::2] = (grid[..., :-1, :] + grid[..., 1:, :]) * np.float32(0.5)
        fine[..., 1::2] = (fine[..., :-1:2] + fine[..., 2::2]) * np.float32(0.5)
        detail *= roughness
        if detail:
            fine += _uniform(rng, -detail, detail, fine.shape)
        grid = fine
    return grid[..., :SIDE, :SIDE]


def _draw_object(
    rng: np.random.Generator, image: np.ndarray, classes: Classes, labels: np.ndarray, axis: np.ndarray
) -> None:
    """Paint the object over the image: three soft-edged ellipses, moved, resized and perhaps mirrored together."""
    n = len(labels)
    facing = np.where(rng.random((n, 1, 1), dtype=np.float32) < 0.5, np.float32(-1), np.float32(1))
    zoom = _uniform(rng, *ZOOM, (n, 1, 1))
    u = (axis[None, None, :] - _uniform(rng, -SHIFT, SHIFT, (n, 1, 1))) / (zoom * facing)
    v = (axis[None, :, None] - _uniform(rng, -SHIFT, SHIFT, (n, 1, 1))) / zoom
    along = u * classes.stripes[labels, 0, None, None] + v * classes.stripes[labels, 1, None, None]
    wave = np.abs(np.mod(along + _uniform(rng, 0.0, 2.0, (n, 1, 1)), np.float32(2)) - 1) - np.float32(0.5)
    wave *= np.float32(STRIPES)
    colour = classes.colour[labels] + _jitter(rng, n)
    for part in range(N_PARTS):
        centre = classes.centre[labels, part] + _uniform(rng, -POSE, POSE, (n, 2))
        extent = classes.extent[labels, part] * _uniform(rng, 1 - 2 * POSE, 1 + 2 * POSE, (n, 2))
        dv = v - centre[:, 1, None, None]
        du = u - centre[:, 0, None, None] + classes.slant[labels, part, None, None] * dv
        du = du / extent[:, 0, None, None]
        dv = dv / extent[:, 1, None, None]
        cover = np.clip((1 - (du * du + dv * dv)) * 3, 0, 1)[:, None]
        paint = (colour + classes.part_colour[labels, part])[:, :, None, None] + wave[:, None]
        paint -= image
        paint *= cover
        image += paint
