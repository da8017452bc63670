"""What a report page is made of: plain values, so that every section can be tested without HTML."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from matplotlib.figure import Figure

from ecgclip_jax.reporting.figures import as_png_uri, as_svg


@dataclass(frozen=True)
class TableContent:
    """A table of ready text, in which line breaks count; `numeric` are the columns set flush right.

    A row of a single cell is a heading over the rows below it.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""
    note: str = ""
    numeric: Sequence[int] = ()
    shades: Mapping[tuple[int, int], float] = field(default_factory=dict)
    """By (row, column) from -1 to 1: cells coloured by what they hold; a reader without colours loses nothing."""


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
    """A part of the page: notes, facts by name, tables and figures in the order given, and what is folded away."""

    title: str
    notes: Sequence[str] = ()
    facts: Sequence[tuple[str, str]] = ()
    blocks: Sequence[TableContent | FigureContent] = ()
    details: Sequence[tuple[str, str]] = ()

    @property
    def anchor(self) -> str:
        """Where a link of the page jumps to."""
        return "-".join("".join(c if c.isalnum() else " " for c in self.title.lower()).split())


def with_interval(value: float, low: float, high: float, *, form: str = ".3f", between: str = " ") -> str:
    """`0.830 (0.800–0.860)`, or a dash where the value is undefined.

    Args:
        value: the point estimate.
        low: lower end of its interval, NaN if there is none.
        high: upper end.
        form: how a number is written; `+.3f` for differences.
        between: what stands before the interval, a line break in narrow columns.
    """
    if not math.isfinite(value):
        return "–"
    number, *ends = (format(x, form).replace("-", "−") for x in (value, low, high))
    if not math.isfinite(low):
        return number
    return f"{number}{between}({(' to ' if form.startswith('+') else '–').join(ends)})"
