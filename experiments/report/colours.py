"""A colour for each method, one for a light and one for a dark page; the baseline is grey."""

from __future__ import annotations

from experiments.analysis import Comparison

BASELINE = ("#727b86", "#a3adb9")
PALETTE = (  # after experiments.plot, told apart by most eyes and in print
    ("#1f6fb4", "#62aeea"),
    ("#d1581b", "#f0894e"),
    ("#2a8f5d", "#55c48d"),
    ("#8b4fb0", "#bd8de0"),
    ("#b0830e", "#ddb347"),
    ("#c03a72", "#ee7aa9"),
    ("#15808f", "#4fbfce"),
    ("#6d5a3c", "#b9a27c"),
)
DASHES = ("solid", "dashed", "dotdash", "dotted")  # once the colours are used up
FILL = 0.24  # how opaque bands are that lie all one over another, so that curves and edges stay in sight
MOST_FILL = 0.14  # of a band
EDGE, EDGE_WIDTH = 0.55, 0.8  # how opaque the edge of a band is, and its width in pixels of a page, 96 an inch
MOST_CURVES = len(PALETTE) * len(DASHES) + 1


def fill(comparison: Comparison) -> float:
    """How opaque each method's band is: the more methods, the less."""
    return min(MOST_FILL, FILL / max(1, min(len(comparison.methods), MOST_CURVES)))


def styles(comparison: Comparison) -> dict[str, tuple[str, str, str]]:
    """Method -> colour on light, colour on dark, dash."""
    found: dict[str, tuple[str, str, str]] = {}
    place = 0
    for method in comparison.methods:
        if method.name == comparison.baseline:
            found[method.name] = (*BASELINE, "solid")
        else:
            light, dark = PALETTE[place % len(PALETTE)]
            found[method.name] = (light, dark, DASHES[place // len(PALETTE) % len(DASHES)])
            place += 1
    return found
