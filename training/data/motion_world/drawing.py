"""From a scene to pixels: finite exposure, camera shake, distractors and noise.

Transcendental functions run on a few numbers per moment only, in float64, and are rounded to six
decimals before they meet pixels; what runs on pixels is exactly rounded everywhere. A seed
therefore gives the same pixels on every machine.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.data.motion_world.motions import Path, path
from training.data.motion_world.shapes import SHAPES, Plane
from training.data.motion_world.vocabulary import BACKGROUNDS, COLOURS, TEXTURES, VERBS

Frames = NDArray[np.uint8]


@dataclass(frozen=True)
class Scene:
    """What is drawn; ``seed`` decides everything that no word names."""

    noun: str
    verb: str
    colour: str
    texture: str
    background: str
    seed: tuple[int, ...]

    def __post_init__(self) -> None:
        """Refuse words that nothing can draw.

        Raises:
            ValueError: a word is not in the vocabulary; names the field and the word.
        """
        for field, known in (
            ("noun", SHAPES),
            ("verb", VERBS),
            ("colour", COLOURS),
            ("texture", TEXTURES),
            ("background", BACKGROUNDS),
        ):
            if getattr(self, field) not in known:
                raise ValueError(f"{field}: {getattr(self, field)!r} is not in the vocabulary")


@dataclass(frozen=True)
class Camera:
    """How a scene is filmed.

    Attributes:
        pixels: width and height of the square picture.
        frames: number of pictures.
        seconds: length of the video; frame i begins at i / frames of it.
        exposure_seconds: how long the shutter is open for each picture.
        samples: moments averaged within one exposure.
        begin_seconds: when the first shutter opens.
    """

    pixels: int = 80
    frames: int = 16
    seconds: float = 2.0
    exposure_seconds: float = 0.1
    samples: int = 3
    begin_seconds: float = 0.0


def _moments(camera: Camera) -> NDArray[np.float64]:
    """Sample times, float64 (frames * samples,), as fractions of the video."""
    opening = np.arange(camera.frames)[:, None] / camera.frames
    opening = opening + camera.begin_seconds / camera.seconds
    within = (np.arange(camera.samples) / camera.samples)[None, :]
    return (opening + within * camera.exposure_seconds / camera.seconds).reshape(-1)


def _background(kind: str, rng: np.random.Generator, pixels: int) -> Plane:
    """Muted picture, float32 (pixels, pixels, 3), that leaves bright colours to the objects."""
    tint = (0.08 + 0.16 * rng.random(3)).astype(np.float32)
    step = rng.integers(5, 9)
    direction = rng.integers(0, 4)
    speckles = rng.integers(0, 256, size=(pixels, pixels)).astype(np.float32) / np.float32(255)
    ramp = np.arange(pixels, dtype=np.float32) / np.float32(pixels)
    across = np.broadcast_to(ramp[None, :], (pixels, pixels))
    down = np.broadcast_to(ramp[:, None], (pixels, pixels))
    if kind == "dark":
        level = np.zeros((pixels, pixels), np.float32)
    elif kind == "gradient":
        slope = (across, down, np.float32(1) - across, np.float32(1) - down)[direction]
        level = slope * np.float32(0.35)
    elif kind == "checkered":
        cells = (across * np.float32(step)).astype(np.int32) + (down * np.float32(step)).astype(
            np.int32
        )
        level = (cells % 2).astype(np.float32) * np.float32(0.28)
    else:
        level = speckles * np.float32(0.4)
    return level[:, :, None] * np.float32(0.9) + tint[None, None, :]


def _texture(kind: str, x: Plane, y: Plane) -> Plane:
    """Brightness factor of the object's surface, float32 like ``x``."""
    if kind == "plain":
        return np.ones_like(x)
    if kind == "striped":
        dark = np.floor(y * np.float32(2.0)).astype(np.int32) % 2 == 0
    else:
        cell_x = x * np.float32(1.5) - np.floor(x * np.float32(1.5)) - np.float32(0.5)
        cell_y = y * np.float32(1.5) - np.floor(y * np.float32(1.5)) - np.float32(0.5)
        dark = cell_x * cell_x + cell_y * cell_y < np.float32(0.09)
    return np.where(dark, np.float32(0.35), np.float32(1.0))


def _stamp(noun: str, texture: str, track: Path, radius: float, pixels: int) -> tuple[Plane, Plane]:
    """Coverage and surface brightness of one object, float32 (S, pixels, pixels) each."""
    centre = (np.arange(pixels, dtype=np.float32) + np.float32(0.5)) / np.float32(pixels)
    size = np.maximum(radius * track.scale, 1e-3)

    def column(values: NDArray[np.float64]) -> Plane:
        return np.round(values, 6).astype(np.float32)[:, None, None]

    turn = 2 * np.pi * track.turns
    cosine, sine, per_radius = column(np.cos(turn)), column(np.sin(turn)), column(1.0 / size)
    right = (centre[None, None, :] - column(track.x)) * per_radius
    down = (centre[None, :, None] - column(track.y)) * per_radius
    x = right * cosine + down * sine
    y = down * cosine - right * sine
    edge = column(size * pixels)  # one pixel of soft edge
    coverage = np.clip(np.float32(0.5) - SHAPES[noun](x, y) * edge, 0, 1) * column(track.opacity)
    return coverage, _texture(texture, x, y)


def draw(scene: Scene, camera: Camera) -> Frames:
    """Film a scene.

    Returns:
        uint8 (frames, pixels, pixels, 3), RGB.
    """
    rng = np.random.Generator(np.random.PCG64(scene.seed))
    pixels = camera.pixels
    radius = 0.19 + 0.07 * rng.random()
    jitter = 0.9 + 0.2 * rng.random(3)
    colour = np.clip(np.asarray(COLOURS[scene.colour]) * jitter, 0, 1).astype(np.float32)
    noise_level = int(rng.integers(2, 9))
    shake = float(rng.random()) * 0.008
    track = path(scene.verb, _moments(camera), rng, radius=radius)
    background = _background(scene.background, rng, pixels)
    for _ in range(int(rng.integers(0, 3))):  # distractors: small grey things that stand still
        spot_x, spot_y, grey, size = rng.random(4)
        one = np.array([0.0])
        spot = Path(one + spot_x, one + spot_y, one + 1, one + spot_x, one + 1)
        kind = ("square", "cross", "triangle")[int(rng.integers(0, 3))]
        cover, _ = _stamp(kind, "plain", spot, 0.02 + 0.02 * size, pixels)
        tone = np.float32(0.3 + 0.25 * grey)
        background = background + (tone - background) * cover[0][:, :, None]
    offsets = (rng.random((camera.frames, 2)) - 0.5) * 2 * shake
    per_sample = np.repeat(offsets, camera.samples, axis=0)
    shaken = Path(
        track.x + per_sample[:, 0],
        track.y + per_sample[:, 1],
        track.scale,
        track.turns,
        track.opacity,
    )
    coverage, surface = _stamp(scene.noun, scene.texture, shaken, radius, pixels)
    shape = (camera.frames, camera.samples, pixels, pixels)
    lit = (coverage * surface).reshape(shape)
    covered = coverage.reshape(shape)
    total_lit, total_covered = lit[:, 0], covered[:, 0]
    for sample in range(1, camera.samples):  # a fixed order of additions, on every machine
        total_lit = total_lit + lit[:, sample]
        total_covered = total_covered + covered[:, sample]
    share = np.float32(1 / camera.samples)
    total_lit, total_covered = total_lit * share, total_covered * share
    rolls = np.rint(offsets * pixels).astype(int)
    grounds = np.stack([np.roll(background, (dy, dx), axis=(0, 1)) for dx, dy in rolls])
    picture = grounds * (np.float32(1) - total_covered[..., None])
    picture = picture + total_lit[..., None] * colour
    grain = rng.integers(-noise_level, noise_level + 1, size=picture.shape, dtype=np.int16)
    levels = np.rint(picture * np.float32(255)).astype(np.int16) + grain
    film: Frames = np.clip(levels, 0, 255).astype(np.uint8)
    return film
