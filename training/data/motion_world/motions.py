"""The verbs as paths: where an object is, how large, how turned and how visible over time."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Track = NDArray[np.float64]


@dataclass(frozen=True)
class Path:
    """State of one object at S moments, float64 (S,) each.

    ``x``, ``y``: centre in picture widths and heights (y down); ``scale``: factor on the object's
    radius; ``turns``: clockwise rotation in full turns; ``opacity``: 0..1.
    """

    x: Track
    y: Track
    scale: Track
    turns: Track
    opacity: Track


def _triangle_wave(phase: Track) -> Track:
    """A wave of period 1 between -1 and 1 that starts at 0, rising."""
    shifted = phase + 0.25
    return 1.0 - np.abs(4.0 * (shifted - np.floor(shifted)) - 2.0)


def path(verb: str, moments: Track, rng: np.random.Generator, *, radius: float) -> Path:
    """Draw one performance of ``verb``.

    Args:
        verb: one of ``vocabulary.VERBS``.
        moments: float64 (S,), 0 is the start of the video and 1 its end.
        rng: gives the performance its speed, amplitude, phase and place.
        radius: the object's radius in picture heights; paths keep it inside the picture.

    Raises:
        ValueError: the verb is not in the vocabulary.
    """
    u = moments
    still = np.zeros_like(u)
    margin = radius + 0.03
    # Every performance draws the same number of values, whatever the verb: adding a verb does
    # not change how the others look.
    place_x, place_y, speed, phase, amplitude, tilt = rng.random(6)
    x = still + 0.5 + (place_x - 0.5) * (0.9 - 2 * margin)
    y = still + 0.5 + (place_y - 0.5) * (0.9 - 2 * margin)
    scale = still + 1.0
    turns = still + (tilt - 0.5) * 0.08
    opacity = still + 1.0
    reach = (1 - 2 * margin) * (0.75 + 0.25 * speed)
    slack = 1 - 2 * margin - reach
    if verb in ("moving left", "moving right", "moving up", "moving down"):
        forward = margin + slack * phase + reach * u
        along = forward if verb in ("moving right", "moving down") else 1.0 - forward
        if verb in ("moving left", "moving right"):
            x = along
        else:
            y = along
    elif verb == "bouncing":
        cycle = (2.0 + speed) * u + phase
        beat = cycle - np.floor(cycle)
        height = (0.4 + 0.2 * amplitude) * 4.0 * beat * (1.0 - beat)
        y = 1.0 - margin - height
    elif verb == "spinning clockwise":
        turns = turns + phase + (0.36 + 0.2 * speed) * u
    elif verb == "spinning counterclockwise":
        turns = turns + phase - (0.36 + 0.2 * speed) * u
    elif verb in ("growing", "shrinking"):
        low, high = 0.35 + 0.1 * amplitude, 1.35 + 0.15 * speed
        progress = u if verb == "growing" else 1.0 - u
        scale = low + (high - low) * progress
        x, y = 0.5 + (x - 0.5) * 0.6, 0.5 + (y - 0.5) * 0.6
    elif verb == "orbiting":
        angle = 2 * np.pi * (phase + (1.0 + 0.5 * speed) * u)
        orbit = 0.5 - margin - 0.06 * amplitude
        x, y = 0.5 + orbit * np.cos(angle), 0.5 + orbit * np.sin(angle)
    elif verb == "zigzagging":
        forward = margin + slack * phase + reach * u
        x = forward if tilt < 0.5 else 1.0 - forward
        swing = 0.16 + 0.06 * amplitude
        y = 0.5 + (place_y - 0.5) * 0.2 + swing * _triangle_wave((1.6 + 0.8 * speed) * u)
    elif verb == "falling":
        # Waits at the top, drops with growing speed, lies on the ground.
        begin, fall = 0.15 + 0.2 * phase, 0.35 + 0.1 * speed
        progress = np.clip((u - begin) / fall, 0.0, 1.0)
        y = margin + (1 - 2 * margin) * progress * progress
    elif verb == "blinking":
        cycle = (2.0 + 1.5 * speed) * u + phase
        opacity = np.where(cycle - np.floor(cycle) < 0.5, 1.0, 0.0)
    elif verb == "shaking":
        strength = 0.06 + 0.03 * amplitude
        x = 0.5 + (x - 0.5) * 0.7 + strength * _triangle_wave((5.0 + 1.5 * speed) * u + phase)
        y = 0.5 + (y - 0.5) * 0.7 + strength * 0.6 * _triangle_wave((6.2 + speed) * u)
    elif verb == "swinging":
        swing = (0.09 + 0.03 * amplitude) * np.sin(2 * np.pi * ((1.2 + 0.5 * speed) * u + phase))
        length = 0.5
        x = 0.5 + (place_x - 0.5) * 0.15 + length * np.sin(2 * np.pi * swing)
        y = 0.22 + length * np.cos(2 * np.pi * swing)
        turns = -swing
    elif verb == "pulsing":
        wave = np.sin(2 * np.pi * ((2.0 + speed) * u + phase))
        scale = 0.85 + (0.38 + 0.08 * amplitude) * wave
        x, y = 0.5 + (x - 0.5) * 0.6, 0.5 + (y - 0.5) * 0.6
    else:
        raise ValueError(f"verb: {verb!r} is not in the vocabulary")
    return Path(x=x, y=y, scale=scale, turns=turns, opacity=opacity)
