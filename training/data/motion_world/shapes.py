"""The nouns as signed distance formulas.

Each takes object coordinates ``x`` (right) and ``y`` (down), float32 of one shape, in units of the
object's radius, and returns a float32 array of that shape: negative inside, positive outside.
Only ``+ - * min max abs sqrt`` are used on pixels: IEEE 754 rounds these exactly, so a seed gives
the same pixels on every machine.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float32]
Shape = Callable[[Plane, Plane], Plane]


def _disc(x: Plane, y: Plane, radius: float) -> Plane:
    return np.sqrt(x * x + y * y) - np.float32(radius)


def _box(x: Plane, y: Plane, half_width: float, half_height: float) -> Plane:
    return np.maximum(np.abs(x) - np.float32(half_width), np.abs(y) - np.float32(half_height))


def _half_plane(x: Plane, y: Plane, nx: float, ny: float, offset: float) -> Plane:
    return x * np.float32(nx) + y * np.float32(ny) - np.float32(offset)


def _star(x: Plane, y: Plane) -> Plane:
    # A pentagram is where at least four of five half-planes agree: the second largest distance.
    directions = (
        (0.0, 1.0),
        (0.951057, 0.309017),
        (0.587785, -0.809017),
        (-0.587785, -0.809017),
        (-0.951057, 0.309017),
    )
    largest = np.full_like(x, -9.0)
    second = np.full_like(x, -9.0)
    for nx, ny in directions:
        plane = _half_plane(x, y, nx, ny, 0.36)
        second = np.maximum(second, np.minimum(largest, plane))
        largest = np.maximum(largest, plane)
    return second


def _triangle(x: Plane, y: Plane) -> Plane:
    sides = np.maximum(
        _half_plane(x, y, 0.866025, -0.5, 0.48), _half_plane(x, y, -0.866025, -0.5, 0.48)
    )
    return np.maximum(sides, _half_plane(x, y, 0.0, 1.0, 0.55))


def _heart(x: Plane, y: Plane) -> Plane:
    lobes = np.minimum(
        _disc(x - np.float32(0.42), y + np.float32(0.35), 0.52),
        _disc(x + np.float32(0.42), y + np.float32(0.35), 0.52),
    )
    tip = np.maximum(np.abs(x) + y - np.float32(0.88), -y - np.float32(0.1))
    whole: Plane = np.minimum(lobes, tip * np.float32(0.7))
    return whole


def _arrow(x: Plane, y: Plane) -> Plane:
    shaft = _box(x + np.float32(0.35), y, 0.6, 0.2)
    head = np.maximum((x + np.abs(y) - np.float32(0.95)) * np.float32(0.7), np.float32(0.15) - x)
    whole: Plane = np.minimum(shaft, head)
    return whole


def _cross(x: Plane, y: Plane) -> Plane:
    return np.minimum(_box(x, y, 0.95, 0.28), _box(x, y, 0.28, 0.95))


def _square(x: Plane, y: Plane) -> Plane:
    return _box(x, y, 0.75, 0.75)


def _crescent(x: Plane, y: Plane) -> Plane:
    return np.maximum(_disc(x, y, 0.95), -_disc(x - np.float32(0.5), y, 0.75))


def _wheel(x: Plane, y: Plane) -> Plane:
    rim = np.abs(np.sqrt(x * x + y * y) - np.float32(0.78)) - np.float32(0.17)
    spoke = _box(x, y, 0.8, 0.14)
    return np.minimum(rim, spoke)


def _hourglass(x: Plane, y: Plane) -> Plane:
    waist = (np.abs(x) - np.abs(y) * np.float32(0.85) - np.float32(0.06)) * np.float32(0.75)
    whole: Plane = np.maximum(waist, np.abs(y) - np.float32(0.9))
    return whole


def _drop(x: Plane, y: Plane) -> Plane:
    body = _disc(x, y - np.float32(0.35), 0.58)
    cone = np.maximum(
        (np.abs(x) - (y + np.float32(0.95)) * np.float32(0.5)) * np.float32(0.9),
        y - np.float32(0.2),
    )
    whole: Plane = np.minimum(body, cone)
    return whole


def _house(x: Plane, y: Plane) -> Plane:
    walls = _box(x, y - np.float32(0.4), 0.62, 0.5)
    roof = np.maximum((np.abs(x) - (y + np.float32(0.95)) * np.float32(1.05)) * np.float32(0.7), y)
    door = _box(x, y - np.float32(0.65), 0.18, 0.3)
    whole: Plane = np.maximum(np.minimum(walls, roof), -door)
    return whole


def _flag(x: Plane, y: Plane) -> Plane:
    pole = _box(x + np.float32(0.6), y, 0.13, 0.95)
    cloth = _box(x - np.float32(0.1), y + np.float32(0.45), 0.75, 0.45)
    return np.minimum(pole, cloth)


def _mushroom(x: Plane, y: Plane) -> Plane:
    cap = np.maximum(_disc(x, y, 0.92), y)
    stem = _box(x, y - np.float32(0.4), 0.22, 0.5)
    return np.minimum(cap, stem)


def _pie(x: Plane, y: Plane) -> Plane:
    missing = np.maximum(-x, y)  # the upper right quarter is eaten
    return np.maximum(_disc(x, y, 0.92), -missing)


def _ladder(x: Plane, y: Plane) -> Plane:
    rails = np.abs(np.abs(x) - np.float32(0.5)) - np.float32(0.13)
    rungs = np.abs(np.abs(y) - np.float32(0.42)) - np.float32(0.13)
    inside = np.abs(x) - np.float32(0.5)
    return np.maximum(np.minimum(rails, np.maximum(rungs, inside)), np.abs(y) - np.float32(0.95))


def _hexagon(x: Plane, y: Plane) -> Plane:
    slanted = np.abs(x) * np.float32(0.5) + np.abs(y) * np.float32(0.866025)
    return np.maximum(slanted, np.abs(x)) - np.float32(0.85)


SHAPES: dict[str, Shape] = {
    "star": _star,
    "heart": _heart,
    "arrow": _arrow,
    "cross": _cross,
    "triangle": _triangle,
    "square": _square,
    "crescent": _crescent,
    "wheel": _wheel,
    "hourglass": _hourglass,
    "drop": _drop,
    "house": _house,
    "flag": _flag,
    "mushroom": _mushroom,
    "pie": _pie,
    "ladder": _ladder,
    "hexagon": _hexagon,
}
