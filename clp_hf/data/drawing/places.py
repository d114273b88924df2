"""Drawn places: land and water, each with its sky."""

import numpy as np

from .pixels import axis, edge, noise, over, ramp

FOLIAGE = [  # dark to light
    [(22, 38, 20), (52, 82, 36), (104, 140, 62), (176, 196, 112)],
    [(26, 40, 30), (50, 74, 52), (92, 122, 84), (150, 170, 128)],
    [(46, 36, 20), (96, 80, 36), (152, 122, 50), (206, 172, 92)],
]
GROUND = [
    [(46, 40, 24), (92, 96, 48), (142, 148, 76)],
    [(52, 38, 26), (106, 82, 54), (158, 132, 90)],
    [(34, 56, 24), (84, 118, 48), (150, 172, 84)],
]
SKY = [[(112, 158, 208), (206, 224, 238)], [(150, 166, 182), (222, 226, 228)], [(126, 146, 190), (246, 214, 176)]]
WATER = [
    [(16, 48, 74), (44, 92, 124), (112, 158, 182)],
    [(20, 62, 66), (54, 112, 112), (132, 178, 172)],
    [(44, 56, 68), (92, 106, 118), (160, 170, 176)],
    [(30, 44, 72), (88, 96, 122), (196, 170, 160)],
]


def draw_land(rng: np.random.Generator, size: int) -> np.ndarray:
    """A forest or a meadow with its edge: (size, size, 3) in [0, 1]."""
    y = axis(size)[:, None]
    forest = rng.random() < 0.6
    leaves = rng.choice(len(FOLIAGE))
    horizon = rng.uniform(0.6, 0.85) if forest else rng.uniform(0.3, 0.55)
    horizon = horizon + 0.08 * (noise(rng, 1, size, cells=(1, 4), octaves=2) - 0.5)
    scene = _sky(rng, size)

    # Foliage in two depths: hazy far trees, then near ones, each open where its coarse noise is low.
    for haze in (0.45, 0.0):
        cover = noise(rng, size, size, cells=(3, 3), octaves=5)
        openness = rng.uniform(0.2, 0.4) if forest else 0.3 + 1.6 * np.clip(horizon - 0.25 - y, 0, 1) * (1 + haze)
        texture = 0.55 * noise(rng, size, size, cells=(10, 10), octaves=4) + 0.45 * cover
        colour = ramp(texture, FOLIAGE[leaves]) * (1 - haze) + haze * np.float32([0.62, 0.7, 0.7])
        scene = over(scene, colour, edge(cover - openness, 0.05))
        if forest:
            scene = _trunks(rng, scene, horizon, haze)

    # Ground: blades (noise stretched upwards) that grow towards the viewer.
    depth = np.clip((y - horizon) / (1.001 - horizon), 0, 1)
    far, near = (noise(rng, size, size, cells=cells, octaves=3) for cells in ((16, 48), (5, 26)))
    blades = far * (1 - depth) + near * depth
    litter = noise(rng, size, size, cells=(5, 4), octaves=3)
    ground = ramp(0.65 * blades + 0.35 * litter, GROUND[rng.choice(len(GROUND))])
    scene = over(scene, ground, edge(y - horizon + 0.05 * (far - 0.5), 0.012))
    dapple = noise(rng, size, size, cells=(3, 3), octaves=2)
    return np.clip(scene * (0.75 + 0.5 * dapple)[..., None] * rng.uniform(0.8, 1.15), 0, 1)


def _trunks(rng, scene, horizon, haze):
    size = len(scene)
    y, x = axis(size)[:, None], axis(size)[None]
    bark = ramp(noise(rng, size, size, cells=(5, 40), octaves=3), [(34, 28, 24), (88, 74, 60), (140, 124, 104)])
    for _ in range(rng.integers(2, 6)):
        half = rng.uniform(0.008, 0.022) if haze else rng.uniform(0.015, 0.05)
        centre = (
            rng.uniform(0, 1) + rng.normal(0, 0.06) * (1 - y) + 0.02 * np.sin(y * rng.uniform(2, 6) + rng.uniform(0, 6))
        )
        across = (x - centre) / (half * (0.8 + 0.4 * y))
        round_shade = np.clip(1.15 - 0.45 * across - 0.3 * across**2, 0.3, 1.3)[..., None]
        colour = bark * round_shade * (1 - haze) + haze * np.float32([0.55, 0.6, 0.6])
        foot = horizon + 0.04 if not haze else horizon
        scene = over(scene, colour, edge(1 - np.abs(across), 0.25) * edge(foot - y, 0.02))
    return scene


def draw_water(rng: np.random.Generator, size: int) -> np.ndarray:
    """Open water under a sky, sometimes with a far shore: (size, size, 3) in [0, 1]."""
    y, x = axis(size)[:, None], axis(size)[None]
    horizon = rng.uniform(0.08, 0.45)
    sky = _sky(rng, size)
    scene = sky
    if rng.random() < 0.4:
        ridge = horizon - rng.uniform(0.03, 0.1) * (0.3 + noise(rng, 1, size, cells=(1, 4), octaves=4))
        tone = np.float32([0.38, 0.44, 0.46]) * rng.uniform(0.8, 1.3)
        scene = over(scene, tone * (0.9 + 0.2 * noise(rng, size, size, (8, 8), 3))[..., None], edge(y - ridge, 0.015))

    depth = np.clip((y - horizon) / (1 - horizon), 0, 1)
    ripples, waves, swell = (noise(rng, size, size, cells, 3) for cells in ((60, 14), (22, 5), (9, 2)))
    surface = ripples * (1 - depth) ** 2 + waves * 2 * depth * (1 - depth) + swell * depth**2
    surface = 0.5 + (surface / np.maximum(1e-3, (1 - depth) ** 2 + 2 * depth * (1 - depth) + depth**2) - 0.5) * 1.5
    water = ramp(np.clip(surface - 0.12 * depth + 0.1, 0, 1), WATER[rng.choice(len(WATER))])
    mirrored = sky[np.clip((2 * horizon * size - np.arange(size)).astype(int), 0, size - 1)]
    water = over(water, mirrored, 0.15 + 0.45 * (1 - depth) * np.clip(surface, 0, 1))
    glitter = np.exp(-(((x - rng.uniform(0, 1)) / (0.08 + 0.25 * depth)) ** 2)) * rng.uniform(0, 1)
    water = water + (glitter * edge(surface - 0.62, 0.06))[..., None] * np.float32([0.5, 0.48, 0.42])
    scene = over(scene, water, edge(y - horizon, 0.008))
    return np.clip(scene * rng.uniform(0.8, 1.15), 0, 1)


def _sky(rng, size):
    height = np.clip(1.6 * axis(size), 0, 1)[:, None].repeat(size, 1)
    sky = ramp(height, SKY[rng.choice(len(SKY))])
    clouds = noise(rng, size, size, cells=(6, 3), octaves=4)
    return over(sky, np.float32(1), 0.8 * edge(clouds - rng.uniform(0.45, 0.9), 0.18))
