"""What the drawings are made of: noise, colour ramps and layers, arrays (height, width[, 3]) in [0, 1]."""

from functools import lru_cache

import numpy as np
from PIL import Image


def noise(rng, height, width, cells, octaves=4):
    """Fractal noise in [0, 1]: random grids of `cells` (rows, columns), each octave twice as fine, half as strong."""
    total = 0
    for octave in range(octaves):
        rows, columns = _upsampling(cells[0] << octave, height), _upsampling(cells[1] << octave, width)
        grid = rng.random((rows.shape[1], columns.shape[1]), dtype=np.float32)
        total = total + rows @ grid @ columns.T * np.float32(0.5**octave)
    low, high = total.min(), total.max()
    return (total - low) / (high - low)


@lru_cache(maxsize=1024)
def _upsampling(cells, size):
    """Matrix (size, min(cells + 1, size)) of bicubic interpolation."""
    knots = min(cells + 1, size)
    return np.asarray(Image.fromarray(np.eye(knots, dtype=np.float32)).resize((knots, size), Image.Resampling.BICUBIC))


def ramp(value, colours):
    """Colours (k, 3) in 0 ... 255, interpolated at `value` in [0, 1] in 256 steps."""
    colours = np.asarray(colours) / 255
    stops, steps = np.linspace(0, 1, len(colours)), np.linspace(0, 1, 256)
    table = np.stack([np.interp(steps, stops, channel) for channel in colours.T], -1, dtype=np.float32)
    return table[(value * 255).astype(np.uint8)]


def axis(size):
    """Coordinates of `size` pixels, from 0 to 1."""
    return np.linspace(0, 1, size, dtype=np.float32)


def edge(distance, softness):
    """Coverage in [0, 1] of a soft edge: one half where `distance` is 0, full from `softness` on."""
    return np.clip(0.5 + distance / (2 * softness), 0, 1)


def over(below, above, alpha):
    """The layer `above` with opacity `alpha` (height, width) laid over `below`."""
    return below + (above - below) * alpha[..., None]


def to_array(image):
    """An image as float32 in [0, 1]."""
    return np.asarray(image, np.float32) / 255


def to_image(array):
    """Values in [0, 1], clipped, as an image of 8 bits."""
    return Image.fromarray(np.round(np.clip(array, 0, 1) * 255).astype(np.uint8))


def rgb(colour):
    """A colour in 0 … 255, clipped, as PIL takes it."""
    return tuple(np.clip(colour, 0, 255).astype(int).tolist())
