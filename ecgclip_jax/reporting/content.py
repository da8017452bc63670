"""What a report page is made of: plain values, so that every section can be tested without HTML."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from matplotlib.figure import Figure

from ecgclip_jax.reporting.figures import as_png_uri, as_svg


@dataclass(frozen=True)
class TableContent:
    """A table of ready text; `numeric` are the columns set flush right."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""
    note: str = ""
    numeric: Sequence[int] = ()


@dataclass(frozen=True)
class FigureContent:
    """A figure with what it shows: `svg` inline, or `uri` of a picture."""

    caption: str
    svg: str = ""
    uri: str = ""


def drawn(figure: Figure, caption: str) -> FigureContent:
    """A figure as vectors."""
    return FigureContent(caption, svg=as_svg(figure))


def pictured(figure: Figure, caption: str, dpi: int = 100) -> FigureContent:
    """A figure as pixels: for scatters and ECG paper, whose vectors would be larger than the page."""
    return FigureContent(caption, uri=as_png_uri(figure, dpi))


@dataclass(frozen=True)
class Section:
    """A part of the page."""

    title: str
    notes: Sequence[str] = ()
    facts: Sequence[tuple[str, str]] = ()
    tables: Sequence[TableContent] = ()
    figures: Sequence[FigureContent] = ()
    details: Sequence[tuple[str, str]] = field(default_factory=tuple)

    @property
    def anchor(self) -> str:
        """Where a link of the page jumps to."""
        return "-".join("".join(c if c.isalnum() else " " for c in self.title.lower()).split())


def with_interval(value: float, low: float, high: float) -> str:
    """`0.83 (0.80–0.86)`, or a dash where the value is undefined."""
    if not math.isfinite(value):
        return "–"
    return f"{value:.3f} ({low:.3f}–{high:.3f})" if math.isfinite(low) else f"{value:.3f}"
