"""Drawn birds: songbirds and waterfowl, told apart by their shape alone."""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from .pixels import noise, rgb, to_array

SUPERSAMPLING = 4  # birds are drawn this many times larger, then box-filtered: antialiased edges and an exact soft mask

PLUMAGE = [(112, 84, 58), (74, 62, 54), (150, 120, 84), (118, 122, 128)]
PLUMAGE += [(70, 78, 92), (206, 198, 184), (150, 92, 58), (92, 98, 70)]
CIRCLE = np.stack([np.cos(np.arange(24) * np.pi / 12), np.sin(np.arange(24) * np.pi / 12)], 1)
BILLS = [(226, 150, 48), (196, 160, 80), (70, 62, 56), (120, 112, 104)]


def draw_bird(rng: np.random.Generator, label: int, length: int):
    """A bird whose longer side is `length` pixels: (colour (h, w, 3), alpha (h, w)), both in [0, 1]."""
    parts = (_songbird, _waterfowl)[label](rng)
    turn = np.deg2rad(rng.normal(0, 9))
    rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    flip = np.array([rng.choice([-1, 1]), 1])
    parts = [(role, points @ rotation * flip) for role, points in parts]
    everything = np.concatenate([points for _, points in parts])
    low, high = everything.min(0), everything.max(0)
    scale = length * SUPERSAMPLING / (high - low).max()
    width, height = (np.ceil((high - low) * scale / SUPERSAMPLING).astype(int) * SUPERSAMPLING).tolist()

    body = rng.choice(PLUMAGE) * rng.uniform(0.75, 1.25) + rng.normal(0, 8, 3)
    bill = rng.choice(BILLS) * rng.uniform(0.8, 1.15)
    colours = {
        "body": body,
        "head": body * rng.uniform(0.6, 1.2),
        "belly": body + (235 - body) * rng.uniform(0.15, 0.65),
        "wing": body * rng.uniform(0.55, 0.85),
        "feather": body * rng.uniform(0.35, 0.5),
        "bill": bill,
        "leg": bill * 0.8,
        "eye": np.array([14, 12, 12]),
        "glint": np.array([235, 235, 235]),
    }
    # The canvas starts in the body's colour, so that no dark fringe bleeds into the filtered edge.
    colour, silhouette = Image.new("RGB", (width, height), rgb(body)), Image.new("L", (width, height))
    paint, cut = ImageDraw.Draw(colour), ImageDraw.Draw(silhouette)
    for role, points in parts:
        outline = ((points - low) * scale).ravel().tolist()
        paint.polygon(outline, fill=rgb(colours[role]))
        cut.polygon(outline, fill=255)
    colour, silhouette = colour.reduce(SUPERSAMPLING), silhouette.reduce(SUPERSAMPLING)

    # Roundness: the blurred silhouette is a height map, lit from above on a random side.
    radius = 0.05 * length
    slope_y, slope_x = np.gradient(to_array(silhouette.filter(ImageFilter.GaussianBlur(radius))) * radius)
    light = 1 + 0.9 * np.clip(rng.uniform(-0.7, 0.7) * slope_x + slope_y, -0.5, 0.5)
    speckle = noise(rng, *slope_x.shape, cells=(9, 6), octaves=3)
    return to_array(colour) * (light * (0.82 + 0.36 * speckle))[..., None], to_array(silhouette)


# A bird is a list of (role, polygon) from back to front; it faces right, y points down, and its body is about 1 long.


def _songbird(rng):
    """Round body on thin legs, no neck, short conical bill, long tail."""
    plump, upright = rng.uniform(0.85, 1.15), rng.uniform(-0.1, 0.12)
    head = np.array([0.27, -0.27 - upright]) + rng.normal(0, 0.02, 2)
    radius = rng.uniform(0.165, 0.2)
    tail = np.array([-0.62 - rng.uniform(0, 0.2), 0.2 + rng.uniform(-0.12, 0.25)])
    body = [(0.42, -0.1), (0.3, -0.3), (0.05, -0.32), (-0.25, -0.12), (-0.48, 0.1)]
    body += [(-0.3, 0.28), (0.02, 0.36), (0.34, 0.24)]
    belly = [(0.4, 0.0), (0.2, 0.05), (-0.05, 0.18), (-0.3, 0.2), (-0.2, 0.3), (0.02, 0.34), (0.33, 0.23)]
    wing = [(0.2, -0.12), (0.02, -0.22), (-0.25, -0.06), (-0.6, 0.16), (-0.2, 0.18), (0.08, 0.14)]
    stretch = np.array([1, plump])
    parts = _legs(rng, hip=(-0.02, 0.3 * plump), length=rng.uniform(0.16, 0.26), thickness=0.014)
    parts += [
        ("wing", _tapered([(-0.25, 0.08), tail], [0.09, 0.06])),
        ("body", _smooth(np.array(body) * stretch)),
        ("belly", _smooth(np.array(belly) * stretch)),
        ("head", _disc(head, radius)),
        ("bill", head + radius * np.array([(0.85, -0.35), (1.85 + rng.uniform(-0.2, 0.4), 0.12), (0.85, 0.4)])),
        *_eye(head + radius * np.array([0.4, -0.15])),
        *_wing(np.array(wing) * stretch),
    ]
    return parts


def _waterfowl(rng):
    """Low boat-shaped body, S-shaped neck, flat bill, short legs."""
    reach = rng.uniform(0.22, 0.5)  # how far the head is raised above the breast: resting duck to alert goose
    lean = rng.uniform(-0.06, 0.1)
    head = np.array([0.4 + lean, -0.08 - reach])
    radius = rng.uniform(0.1, 0.125)
    hull = [(0.46, 0.0), (0.34, -0.14), (0.0, -0.12), (-0.3, -0.16), (-0.72, -0.2)]
    hull += [(-0.5, 0.14), (-0.2, 0.26), (0.2, 0.27), (0.42, 0.18)]
    belly = [(0.43, 0.08), (0.1, 0.12), (-0.3, 0.1), (-0.5, 0.08)]
    belly += [(-0.45, 0.14), (-0.18, 0.25), (0.2, 0.26), (0.4, 0.18)]
    wing = [(0.24, -0.04), (0.1, -0.14), (-0.2, -0.18), (-0.62, -0.12), (-0.25, 0.1), (0.1, 0.12)]
    stretch = np.array([1, rng.uniform(0.85, 1.15)])
    neck = [(0.3, 0.04), (0.42, -0.05), (0.36 + lean / 2, -0.06 - 0.55 * reach), head]
    bill = [(0.7, -0.5), (1.5, 0.1), (2.3, 0.2), (2.4, 0.5), (1.6, 0.6), (0.7, 0.55)]
    parts = _legs(rng, hip=(-0.05, 0.2), length=rng.uniform(0.14, 0.2), thickness=0.022) if rng.random() < 0.5 else []
    parts += [
        ("body", _smooth(np.array(hull) * stretch)),
        ("belly", _smooth(np.array(belly) * stretch)),
        ("head", _tapered(neck, [0.15, 0.1, 0.07, 0.08])),
        ("bill", head + radius * _smooth(np.array(bill))),
        ("head", _disc(head, radius)),
        *_eye(head + radius * np.array([0.35, -0.25])),
        *_wing(np.array(wing) * stretch),
    ]
    return parts


def _wing(points):
    """A folded wing with three rows of feather edges."""
    front, tip = points[0], points[3]
    edges = []
    for along, across in ((0.3, 0.7), (0.5, 0.45), (0.62, 0.2)):
        start = front + along * (tip - front) + across * (points[5] - front) * 0.5
        middle = (start + tip) / 2 + np.array([0, 0.03])
        edges.append(("feather", _tapered([start, middle, tip], [0.012, 0.014, 0.004])))
    return [("wing", _smooth(points)), *edges]


def _legs(rng, hip, length, thickness):
    (x, y), parts = hip, []
    for shift in (-0.06, 0.08):
        foot, ground = x + shift + rng.normal(0, 0.02), y + length
        parts.append(("leg", _tapered([(x + shift, y - 0.05), (foot, ground)], [thickness, thickness])))
        parts.append(("leg", _tapered([(foot - 0.05, ground), (foot + 0.1, ground)], [thickness, thickness * 0.7])))
    return parts


def _eye(centre):
    return [("eye", _disc(centre, 0.03)), ("glint", _disc(centre + np.array([0.008, -0.01]), 0.01))]


def _disc(centre, radius):
    return centre + radius * CIRCLE


def _smooth(points, rounds=3):
    """Chaikin's corner cutting: the closed quadratic B-spline of a control polygon."""
    for _ in range(rounds):
        following = np.roll(points, -1, 0)
        points = np.stack([0.75 * points + 0.25 * following, 0.25 * points + 0.75 * following], 1).reshape(-1, 2)
    return points


def _tapered(centres, radii):
    """Outline of a limb that follows `centres`, smoothed, with a radius that varies along it."""
    path = np.column_stack([np.array(centres, float), radii])
    for _ in range(3):  # corner cutting that keeps both ends
        cut = np.stack([0.75 * path[:-1] + 0.25 * path[1:], 0.25 * path[:-1] + 0.75 * path[1:]], 1).reshape(-1, 3)
        path = np.concatenate([path[:1], cut, path[-1:]])
    spine, radius = path[:, :2], path[:, 2:]
    along = np.gradient(spine, axis=0)
    across = along[:, ::-1] * (-1, 1) / np.linalg.norm(along, axis=1, keepdims=True)
    return np.concatenate([spine + across * radius, (spine - across * radius)[::-1]])
