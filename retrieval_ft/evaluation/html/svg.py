"""Drawings for the page: matplotlib's SVG, made to follow the page's colours, font and ids.

matplotlib writes fixed colours. We let it draw with sentinels and put CSS variables in their place,
so that one drawing serves light and dark. The same drawing always gives the same bytes: a fixed salt
for its ids, no date, and no settings of the user's.
"""

from __future__ import annotations

import io
import re
import warnings
import xml.etree.ElementTree as ET  # of what matplotlib wrote a moment ago, never of a file
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from retrieval_ft.evaluation.html.blocks import one_line

INK, MUTED, GRID, PAPER, UP, DOWN = (f"#0a0b{i:02x}" for i in range(6))
COLOURS = 8
"""Colours of lines: `--s0` to `--s7` of the style sheet."""
LINES = tuple(f"#0a0c{i:02x}" for i in range(COLOURS))
_VARIABLES = {
    **{INK: "ink", MUTED: "muted", GRID: "grid", PAPER: "paper", UP: "up", DOWN: "down"},
    **{colour: f"s{i}" for i, colour in enumerate(LINES)},
}
_SENTINEL = re.compile("|".join(_VARIABLES))
_REFERENCE = re.compile(r"url\(#([^)]+)\)")
_FONT = re.compile(r"font(?:-family: [^;]*;|: ([\d.]+px) [^;]*;)")
_DIGITS = re.compile(r"(\.\d\d)\d+")
_XLINK = "{http://www.w3.org/1999/xlink}href"
_SPOKEN = 2_000
WIDTH = 460
"""Points; the page stretches a drawing to its column, and shrinks it on a phone."""
_SETTINGS: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "retrieval_ft",
    "text.parse_math": False,
    "font.size": 11,
    "axes.labelsize": 11,
    "axes.labelpad": 8,
    "xtick.labelsize": 10.5,
    "ytick.labelsize": 10.5,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "axes.edgecolor": GRID,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "hatch.linewidth": 0.6,
}


@dataclass(frozen=True)
class Look:
    """How a line is drawn: by colour, dashes and marker, so that none of them alone must be seen."""

    colour: int
    dash: str
    """Of SVG, in multiples of the line's width; empty for a whole line."""
    marker: str

    @property
    def dashes(self) -> Any:
        """The same for matplotlib."""
        return (0, tuple(map(float, self.dash.split()))) if self.dash else "solid"


_KNOWN = {
    "bm25": Look(0, "1 1.5", "s"),
    "base_dense": Look(1, "4 2", "o"),
    "base_hybrid": Look(2, "", "o"),
    "tuned_dense": Look(3, "4 2", "^"),
    "tuned_hybrid": Look(4, "", "^"),
    "dense": Look(1, "4 2", "o"),
    "hybrid": Look(2, "", "o"),
}
_OTHER_COLOURS = (5, 6, 7)
_DASHES = ("", "4 2", "1 1.5", "6 2 1 2")
_MARKERS = ("D", "v", "P", "X")


def looks(systems: Iterable[str]) -> dict[str, Look]:
    """A look for each system: base is blue, tuned orange to red, dense dashed, hybrid whole."""
    found: dict[str, Look] = {}
    others = 0
    for name in systems:
        if name in _KNOWN:
            found[name] = _KNOWN[name]
            continue
        row, column = divmod(others, len(_OTHER_COLOURS))
        found[name] = Look(
            _OTHER_COLOURS[column],
            _DASHES[(row + column) % len(_DASHES)],
            _MARKERS[others % len(_MARKERS)],
        )
        others += 1
    return found


def draw(
    paint: Callable[[Any], None], *, key: str, title: str, description: str, height: float = 270
) -> str:
    """Draw and give back an SVG element for the page.

    Args:
        paint: draws into a matplotlib `Figure`.
        key: of letters; the element's ids start with it, so each drawing of a page needs its own.
        title: what a screen reader says it is.
        description: the figures that matter, in words.
        height: in points; the width is `WIDTH`.
    """
    from matplotlib import rc_context, rcdefaults, rcParams
    from matplotlib.figure import Figure

    file = io.StringIO()
    with rc_context(), warnings.catch_warnings():
        # The page's font draws the text; that matplotlib's own lacks a letter changes only widths.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        rcdefaults()
        rcParams.update(_SETTINGS)
        figure = Figure(figsize=(WIDTH / 72, height / 72), dpi=72, layout="constrained")
        paint(figure)
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    return inline(file.getvalue(), key=key, title=title, description=description)


def inline(source: str, *, key: str, title: str, description: str) -> str:
    """Make a file of matplotlib's an element of a page: named, with ids of its own, without style."""
    root = ET.fromstring(source[source.index("<svg") :])
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.endswith(("}metadata", "}style")):
                parent.remove(child)
    used = set(_REFERENCE.findall(source)) | {
        element.attrib[_XLINK][1:] for element in root.iter() if _XLINK in element.attrib
    }
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.attrib = {
            name: value
            for given, text in element.attrib.items()
            for name, value in [_attribute(given, text, key, used)]
            if value
        }
    root.attrib = {
        "viewBox": root.attrib["viewBox"],
        "class": "plot",
        "role": "img",
        "aria-labelledby": f"{key}-title {key}-description",
    }
    for i, (tag, text) in enumerate((("title", title), ("desc", description))):
        child = ET.Element(tag, {"id": f"{key}-{'description' if i else 'title'}"})
        child.text = one_line(text, _SPOKEN)
        root.insert(i, child)
    return ET.tostring(root, encoding="unicode")


def _attribute(name: str, text: str, key: str, used: set[str]) -> tuple[str, str]:
    """An attribute as the page has it; an empty value stands for none."""
    if name == "id":
        return name, f"{key}-{text}" if text in used else ""
    if name == _XLINK:
        return "href", f"#{key}-{text[1:]}"
    if name in ("d", "x", "y", "points"):
        return name, _DIGITS.sub(r"\1", text)
    text = _REFERENCE.sub(lambda match: f"url(#{key}-{match[1]})", text)
    text = _SENTINEL.sub(lambda match: f"var(--{_VARIABLES[match[0]]})", text)
    return name, _FONT.sub(lambda match: f"font-size: {match[1]};" if match[1] else "", text)
