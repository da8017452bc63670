"""An ECG as a clinician knows it: true-size traces on millimetre paper, drawn from the stored signal.

Display conventions follow Kligfield et al. 2007 (AHA/ACCF/HRS recommendations, doi 10.1161/CIRCULATIONAHA.106.180200):
25 mm/s, 10 mm/mV, 1 and 5 mm grid, time-aligned columns over a rhythm strip, a calibration pulse, and speed, gain and
band in writing. Axes are in millimetres, so that what is drawn can be read back and measured. A model's own input is
never drawn here: filtered, normalised or padded signals are no ECG to look at.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int16
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from ecgclip_jax.signal.quality import assess
from ecgclip_jax.spec.signal import LEADS_12, MISSING_UV, STORED_RATE_HZ, STORED_SAMPLES, LeadName

NOT_A_DEVICE = "research use, not a medical device"
MM_PER_INCH = 25.4
POINTS_PER_MM = 72 / MM_PER_INCH

LayoutName = Literal["3x4", "6x2", "12x1"]
_PULSE_MM = 5.0
_LEAD_IN_MM = 10.0
"""Paper before the first sample of a row: it holds the calibration pulse."""
_TRAIL_MM = 5.0
_ROW_MM = {"3x4": 35.0, "6x2": 20.0, "12x1": 15.0}
_FINE_GRID_SCALE = 0.6
"""Smaller than this the millimetre lines would run into one pink."""
_MIN_PAGE_MM = (297.0, 210.0)
_MARGIN_MM = 12.0
_LINE_MM = 4.8
_PAPER, _GRID_FINE, _GRID_BOLD, _INK, _GREY = "#fffdfc", "#f7dcda", "#eeb4b0", "#15151c", "#6b6b73"
_CABRERA: tuple[tuple[LeadName, int], ...] = (
    ("aVL", 1), ("I", 1), ("aVR", -1), ("II", 1), ("aVF", 1), ("III", 1)
)  # fmt: skip


@dataclass(frozen=True)
class _Trace:
    """A lead's place on the paper: which seconds of it start where."""

    lead: LeadName
    sign: int
    start_s: float
    stop_s: float
    left_mm: float
    baseline_mm: float
    rhythm: bool = False

    @property
    def label(self) -> str:
        return f"{'−' if self.sign < 0 else ''}{self.lead}"


@dataclass(frozen=True)
class _Paper:
    width_mm: float
    height_mm: float
    row_mm: float
    traces: tuple[_Trace, ...]


def draw_ecg_page(
    ecg_uv: Int16[np.ndarray, "5000 12"],
    *,
    title: str = "",
    lines: Sequence[str] = (),
    quality_flags: Sequence[str] | None = None,
    rate_hz_source: float | None = None,
    band_hz: tuple[float | None, float | None] = (None, None),
    layout: LayoutName = "3x4",
    speed_mm_s: float = 25.0,
    gain_mm_mv: float = 10.0,
    cabrera: bool = False,
) -> Figure:
    """A page of stored microvolts (500 Hz, stored leads, -32768 = missing) at true size; A4 landscape or wider.

    Each lead stands with its median over the ten seconds on its base line, as a recorder's pen does; nothing else is
    done to the signal. Gaps stay gaps, a missing lead says so. `lines` (prompts, findings) go under the title;
    `quality_flags` None assesses the signal here; `band_hz` and `rate_hz_source` are the record's own facts, unknown
    ones None or NaN. `cabrera` orders the limb leads aVL, I, −aVR, II, aVF, III. Save with `figure.savefig` as PDF, SVG
    or PNG, without `bbox_inches="tight"`, which would lose the true size.
    """
    paper = _lay_out(layout, speed_mm_s, cabrera)
    header_mm = _LINE_MM * (1.2 + len(lines)) + 3
    footer_mm = 2 * _LINE_MM + 4
    width_mm = max(_MIN_PAGE_MM[0], paper.width_mm + 2 * _MARGIN_MM)
    height_mm = max(_MIN_PAGE_MM[1], paper.height_mm + header_mm + footer_mm + 2 * _MARGIN_MM)
    figure = Figure(figsize=(width_mm / MM_PER_INCH, height_mm / MM_PER_INCH), facecolor="white")
    left_mm = (width_mm - paper.width_mm) / 2
    bottom_mm = (height_mm - paper.height_mm - header_mm - footer_mm) / 2 + footer_mm
    axes = figure.add_axes(
        (left_mm / width_mm, bottom_mm / height_mm, paper.width_mm / width_mm, paper.height_mm / height_mm),
        label="paper",
    )
    _draw_paper(axes, paper, ecg_uv, speed_mm_s, gain_mm_mv, scale=1.0)

    def write(x_mm: float, y_mm: float, text: str, size_pt: float, **style: Any) -> None:
        figure.text(x_mm / width_mm, y_mm / height_mm, text, fontsize=size_pt, va="baseline", **style)

    right_mm = left_mm + paper.width_mm
    first_mm = bottom_mm + paper.height_mm + header_mm - 1.2 * _LINE_MM
    write(left_mm, first_mm, title, 12.0, color=_INK, weight="bold")
    write(right_mm, first_mm, NOT_A_DEVICE, 8.5, color=_GREY, ha="right")
    for number, line in enumerate(lines, start=1):
        write(left_mm, first_mm - number * _LINE_MM, line, 9.0, color=_INK)
    flags = assess(ecg_uv) if quality_flags is None else tuple(quality_flags)
    settings = f"{speed_mm_s:g} mm/s    {gain_mm_mv:g} mm/mV    {_band(band_hz)}    {_source(rate_hz_source)}"
    suspicions = ", ".join(str(flag).replace("_", " ") for flag in flags)
    verdict = f"quality: check {suspicions}" if flags else "quality: nothing suspicious"
    write(left_mm, bottom_mm - 1.3 * _LINE_MM, settings, 9.0, color=_INK)
    write(left_mm, bottom_mm - 2.3 * _LINE_MM, verdict, 9.0, color="#a3341f" if flags else _GREY)
    return figure


def draw_ecg(
    axes: Axes,
    ecg_uv: Int16[np.ndarray, "5000 12"],
    *,
    title: str = "",
    layout: LayoutName = "3x4",
    speed_mm_s: float = 25.0,
    gain_mm_mv: float = 10.0,
    cabrera: bool = False,
) -> None:
    """The paper of `draw_ecg_page` alone, into given axes of any size: for contact sheets. Lettering shrinks along."""
    paper = _lay_out(layout, speed_mm_s, cabrera)
    box = axes.get_window_extent()
    inches = box.width / axes.figure.dpi, box.height / axes.figure.dpi
    scale = min(inches[0] / paper.width_mm, inches[1] / paper.height_mm) * MM_PER_INCH
    _draw_paper(axes, paper, ecg_uv, speed_mm_s, gain_mm_mv, scale)
    if title:
        axes.set_title(title, fontsize=max(6.0, 14 * scale), color=_INK, loc="left", pad=2)


def _lay_out(layout: LayoutName, speed_mm_s: float, cabrera: bool) -> _Paper:
    limb = _CABRERA if cabrera else tuple((lead, 1) for lead in LEADS_12[:6])
    leads = (*limb, *((lead, 1) for lead in LEADS_12[6:]))
    n_columns = {"3x4": 4, "6x2": 2, "12x1": 1}[layout]
    n_rows, column_s = 12 // n_columns, STORED_SAMPLES / STORED_RATE_HZ / n_columns
    with_strip = layout != "12x1"
    row_mm = _ROW_MM[layout]
    edge_mm = 5.0
    height_mm = 2 * edge_mm + row_mm * (n_rows + with_strip)

    def baseline_mm(row: int) -> float:
        """A bold line, with a little more of the row above it: R waves need the room."""
        return height_mm - edge_mm - row_mm * row - 5.0 * math.ceil(row_mm / 10)

    traces = [
        _Trace(
            lead, sign, column * column_s, (column + 1) * column_s,
            _LEAD_IN_MM + column * column_s * speed_mm_s, baseline_mm(row),
        )
        for index, (lead, sign) in enumerate(leads)
        for column, row in [divmod(index, n_rows)]
    ]  # fmt: skip
    duration_s = STORED_SAMPLES / STORED_RATE_HZ
    if with_strip:
        traces.append(_Trace("II", 1, 0.0, duration_s, _LEAD_IN_MM, baseline_mm(n_rows), rhythm=True))
    width_mm = 5.0 * math.ceil((_LEAD_IN_MM + duration_s * speed_mm_s + _TRAIL_MM) / 5)
    return _Paper(width_mm, height_mm, row_mm, tuple(traces))


def _draw_paper(
    axes: Axes, paper: _Paper, ecg_uv: Int16[np.ndarray, "5000 12"], speed_mm_s: float, gain_mm_mv: float, scale: float
) -> None:
    axes.set(xlim=(0, paper.width_mm), ylim=(0, paper.height_mm), aspect="equal", xticks=[], yticks=[])
    axes.patch.set_facecolor(_PAPER)
    for side in axes.spines.values():
        side.set(color=_GRID_BOLD, linewidth=0.3 * POINTS_PER_MM * scale)
    _draw_grid(axes, paper, scale)
    for trace in paper.traces:
        _draw_trace(axes, paper, trace, ecg_uv, speed_mm_s, gain_mm_mv, scale)
    for baseline_mm in sorted({trace.baseline_mm for trace in paper.traces}):
        before, top = (_LEAD_IN_MM - _PULSE_MM) / 2, baseline_mm + gain_mm_mv
        x_mm = [before - 1.5, before, before, before + _PULSE_MM, before + _PULSE_MM, before + _PULSE_MM + 1.5]
        y_mm = [baseline_mm, baseline_mm, top, top, baseline_mm, baseline_mm]
        pulse = axes.plot(x_mm, y_mm, color=_INK, linewidth=0.27 * POINTS_PER_MM * scale, label="1 mV")[0]
        pulse.set_solid_joinstyle("miter")


def _draw_grid(axes: Axes, paper: _Paper, scale: float) -> None:
    for step_mm, colour, width_mm in ((1, _GRID_FINE, 0.11), (5, _GRID_BOLD, 0.17)):
        if step_mm == 1 and scale < _FINE_GRID_SCALE:
            continue
        lines = [[(float(x), 0.0), (float(x), paper.height_mm)] for x in range(0, round(paper.width_mm) + 1, step_mm)]
        lines += [[(0.0, float(y)), (paper.width_mm, float(y))] for y in range(0, round(paper.height_mm) + 1, step_mm)]
        grid = LineCollection(lines, colors=colour, linewidths=width_mm * POINTS_PER_MM * scale, zorder=0.5)
        axes.add_collection(grid, autolim=False)


def _draw_trace(
    axes: Axes,
    paper: _Paper,
    trace: _Trace,
    ecg_uv: Int16[np.ndarray, "5000 12"],
    speed_mm_s: float,
    gain_mm_mv: float,
    scale: float,
) -> None:
    """One lead in its own axes, in mm from its start and its base line."""
    width_mm = (trace.stop_s - trace.start_s) * speed_mm_s
    half_mm = paper.row_mm / 2
    bounds = (trace.left_mm, trace.baseline_mm - half_mm, width_mm, paper.row_mm)
    cell = axes.inset_axes(bounds, transform=axes.transData, xlim=(0, width_mm), ylim=(-half_mm, half_mm))
    cell.set_label(f"{trace.lead} rhythm" if trace.rhythm else trace.lead)
    cell.axis("off")
    x_mm, y_mm = trace_mm(ecg_uv, trace.lead, trace.start_s, trace.stop_s, speed_mm_s, gain_mm_mv * trace.sign)
    if np.isnan(y_mm).all():
        whole = (ecg_uv[:, LEADS_12.index(trace.lead)] == MISSING_UV).all()
        words = "not recorded" if whole else "no signal here"
        cell.text(width_mm / 2, 1, words, ha="center", fontsize=8 * scale, color=_GREY, style="italic")
    line = cell.plot(x_mm, y_mm, color=_INK, linewidth=0.27 * POINTS_PER_MM * scale, solid_joinstyle="round")[0]
    line.set_clip_path(axes.patch)  # tall waves may enter the neighbouring row, as on paper, but not leave the paper
    if trace.start_s > 0:
        cell.plot([0, 0], [-2.5, 2.5], color=_INK, linewidth=0.18 * POINTS_PER_MM * scale, label="divider")
    label = cell.text(1.2, half_mm - 4.5, trace.label, fontsize=9.5 * scale, weight="bold", color=_INK)
    label.set_path_effects([withStroke(linewidth=1.6 * scale, foreground=_PAPER)])


def trace_mm(
    ecg_uv: Int16[np.ndarray, "5000 12"],
    lead: LeadName,
    start_s: float,
    stop_s: float,
    speed_mm_s: float,
    gain_mm_mv: float,
) -> tuple[Float[np.ndarray, "samples"], Float[np.ndarray, "samples"]]:
    """A lead's samples on paper: mm from `start_s`, and mm above its median over all ten seconds; NaN where missing."""
    stored = ecg_uv[:, LEADS_12.index(lead)]
    present = stored != MISSING_UV
    level_uv = float(np.median(stored[present])) if present.any() else 0.0
    lead_mm = np.where(present, (stored - level_uv) / 1000 * gain_mm_mv, np.nan)
    samples = np.arange(round(start_s * STORED_RATE_HZ), round(stop_s * STORED_RATE_HZ))
    return (samples / STORED_RATE_HZ - start_s) * speed_mm_s, lead_mm[samples]


def _band(band_hz: tuple[float | None, float | None]) -> str:
    low, high = (None if edge is None or math.isnan(edge) else edge for edge in band_hz)
    if low is None and high is None:
        return "band not stated"
    if low is None:
        return f"band up to {high:g} Hz"
    return f"band from {low:g} Hz" if high is None else f"band {low:g}–{high:g} Hz"


def _source(rate_hz_source: float | None) -> str:
    stored = f"stored at {STORED_RATE_HZ} Hz"
    if rate_hz_source is None or math.isnan(rate_hz_source):
        return stored
    return f"recorded at {rate_hz_source:g} Hz" + ("" if rate_hz_source == STORED_RATE_HZ else f", {stored}")
