"""The figures of a suite's report; each takes a table or arrays and returns a matplotlib figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from ecgclip_jax.reporting.curve_bands import GRID, CurveBands
from ecgclip_jax.reporting.figures import INK, MODEL_COLOURS, sheet

_SMALL = 7
_DASHES = ("-", "--", "-.", ":")


def claim_forest(table: pd.DataFrame, reference: Mapping[str, float], unit: str) -> Figure:
    """Differences with their intervals, a panel per claim; filled where the claim holds.

    Args:
        table: columns `panel`, `row`, `value`, `ci_low`, `ci_high`, `holds`.
        reference: where a panel's dashed line stands besides 0: the margin; NaN for none.
        unit: what the difference is of.
    """
    names, rows = list(dict.fromkeys(table["panel"])), list(dict.fromkeys(table["row"]))
    figure, axes = sheet(7.6, 0.19 * len(rows) + 1.1, columns=len(names))
    for axis, name in zip(axes[0], names, strict=True):
        own = table[table["panel"] == name].set_index("row").reindex(rows)
        height = np.arange(len(rows))[::-1]
        for holds, fill in ((True, MODEL_COLOURS[0]), (False, "white")):
            chosen = own["holds"].eq(holds).to_numpy() & own["value"].notna().to_numpy()
            axis.hlines(height[chosen], own["ci_low"][chosen], own["ci_high"][chosen], color=MODEL_COLOURS[0], lw=1.3)
            axis.plot(
                own["value"][chosen], height[chosen], "o", ms=4.5, mfc=fill, mec=MODEL_COLOURS[0], label=str(holds)
            )
        axis.axvline(0, color=INK, linewidth=0.8)
        if np.isfinite(reference.get(name, np.nan)):
            axis.axvline(reference[name], color=MODEL_COLOURS[2], linewidth=1, linestyle="--")
        axis.set_title(name, fontsize=8, color=INK)
        axis.set_yticks(height, rows if axis is axes[0, 0] else [""] * len(rows))
        axis.set_ylim(-0.6, len(rows) - 0.4)
        axis.tick_params(labelsize=_SMALL)
    figure.supxlabel(f"difference in {unit}, 95 % interval", fontsize=8)
    return figure


def task_forest(table: pd.DataFrame, places: Sequence[str], metric: str, chance: float) -> Figure:
    """Tasks × tests: a row per task, a panel per test, a mark per model; a bare tick is the ceiling.

    Args:
        table: columns `label`, `place`, `model`, `value`, `ci_low`, `ci_high`; a model without intervals is a ceiling.
        places: tests in order, the internal one first; it sorts the tasks.
        metric: what the figure is.
        chance: where a dotted line stands.
    """
    models = list(dict.fromkeys(table["model"]))
    first = table[table["model"] == models[0]]
    order = first.assign(outside=first["place"] != places[0]).sort_values(["outside", "value"])
    labels = list(dict.fromkeys(order["label"]))
    figure, axes = sheet(2.6 + 0.78 * len(places), 0.155 * len(labels) + 1.1, columns=len(places))
    low = max(float(np.floor(10 * table["ci_low"].min()) / 10), 0.0) if table["ci_low"].notna().any() else 0.0
    for axis, place in zip(axes[0], places, strict=True):
        for model, offset, colour in zip(models, np.linspace(0.18, -0.18, len(models)), cycle(MODEL_COLOURS)):
            own = table[(table["place"] == place) & (table["model"] == model)].set_index("label").reindex(labels)
            height = np.arange(len(labels)) + offset
            known = own["ci_low"].notna().to_numpy()
            axis.hlines(height[known], own["ci_low"][known], own["ci_high"][known], color=colour, linewidth=1)
            style = (
                {"marker": "o", "ms": 2.6, "color": colour} if known.any() else {"marker": "|", "ms": 6, "color": INK}
            )
            axis.plot(own["value"], height, linestyle="none", label=model, **style)
        axis.axvline(chance, color=INK, linewidth=0.7, linestyle=":")
        axis.set_title(place, fontsize=8, color=INK)
        axis.set_xlim(low, 1.02)
        axis.set_yticks(range(len(labels)), labels if axis is axes[0, 0] else [""] * len(labels))
        axis.set_ylim(-0.7, len(labels) - 0.3)
        axis.tick_params(labelsize=6.5)
        axis.tick_params(axis="y", length=0)
    _legend(figure, axes[0, 0])
    figure.supxlabel(f"{metric}, 95 % interval", fontsize=8)
    return figure


def label_curves(table: pd.DataFrame) -> Figure:
    """Figures against the share of labels, with bands; a line that was fitted on all labels only is horizontal.

    Args:
        table: columns `panel`, `line`, `fraction`, `value`, `ci_low`, `ci_high`.
    """
    names, lines = list(dict.fromkeys(table["panel"])), list(dict.fromkeys(table["line"]))
    columns = min(4, len(names))
    rows = -(-len(names) // columns)
    figure, axes = sheet(7.6, 1.75 * rows + 0.5, rows=rows, columns=columns)
    fractions = sorted(set(table["fraction"]))
    for axis, name in zip(axes.flat, names, strict=False):
        for line, colour, dash in zip(lines, cycle(MODEL_COLOURS), cycle(_DASHES), strict=False):
            own = table[(table["panel"] == name) & (table["line"] == line)].sort_values("fraction")
            if len(own) == 1:
                axis.axhline(own["value"].iloc[0], color=colour, linewidth=1, linestyle=":", label=line)
                continue
            axis.plot(own["fraction"], own["value"], dash, color=colour, marker="o", ms=2.8, lw=1.2, label=line)
            axis.fill_between(own["fraction"], own["ci_low"], own["ci_high"], color=colour, alpha=0.15, linewidth=0)
        low, high = axis.get_ylim()
        axis.set_ylim(max(low, 0.0), min(high, 1.0))
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(FixedLocator(fractions))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.set_xticklabels([f"{100 * f:g} %" for f in fractions])
        axis.set_title(name, fontsize=8, color=INK)
        axis.tick_params(labelsize=_SMALL)
    for axis in axes.flat[len(names) :]:
        axis.set_visible(False)
    _legend(figure, axes.flat[0])
    figure.supxlabel("share of the training patients whose labels are used", fontsize=8)
    return figure


def setting_curves(table: pd.DataFrame, inside: str) -> Figure:
    """A figure under each setting, a panel per protocol: the internal test with its band, the others as thin lines.

    Args:
        table: columns `panel`, `place`, `setting`, `value`, `ci_low`, `ci_high`; settings in their order.
        inside: the internal test among the places.
    """
    names, settings = list(dict.fromkeys(table["panel"])), list(dict.fromkeys(table["setting"]))
    places = [inside, *(place for place in dict.fromkeys(table["place"]) if place != inside)]
    figure, axes = sheet(7.6, 2.5, columns=len(names))
    for axis, name in zip(axes[0], names, strict=True):
        for place in places:
            own = table[(table["panel"] == name) & (table["place"] == place)].set_index("setting").reindex(settings)
            here = place == inside
            colour, width = (MODEL_COLOURS[0], 1.8) if here else (INK, 0.6)
            label = inside if here else "other tests" if place == places[1] else "_"
            axis.plot(range(len(settings)), own["value"], label=label, color=colour, lw=width, marker="o", ms=2 * width)
            if here:
                axis.fill_between(range(len(settings)), own["ci_low"], own["ci_high"], color=colour, alpha=0.15, lw=0)
        axis.set_xticks(range(len(settings)), settings, fontsize=_SMALL)
        axis.set_title(name, fontsize=8, color=INK)
        axis.tick_params(labelsize=_SMALL)
    _legend(figure, axes[0, 0])
    return figure


def ladder_steps(table: pd.DataFrame) -> Figure:
    """A step per rung, one change each, a panel per figure.

    Args:
        table: columns `rung`, `metric`, `value`, `ci_low`, `ci_high`, rungs in order.
    """
    metrics, rungs = list(dict.fromkeys(table["metric"])), list(dict.fromkeys(table["rung"]))
    figure, axes = sheet(7.6, 2.7, columns=len(metrics))
    for axis, metric in zip(axes[0], metrics, strict=True):
        own = table[table["metric"] == metric].set_index("rung").reindex(rungs)
        at = np.arange(len(rungs))
        axis.step(at, own["value"], where="mid", color=MODEL_COLOURS[1], linewidth=1.2)
        axis.vlines(at, own["ci_low"], own["ci_high"], color=MODEL_COLOURS[0], linewidth=1.4)
        axis.plot(at, own["value"], "o", color=MODEL_COLOURS[0], ms=4.5)
        axis.set_xticks(at, [rung.replace(" ", "\n") for rung in rungs])
        axis.set_title(metric.replace("\n", " "), fontsize=9, color=INK)
        axis.set_xlim(-0.6, len(rungs) - 0.4)
        axis.tick_params(labelsize=_SMALL)
    return figure


def inside_outside(table: pd.DataFrame) -> Figure:
    """Each task at each external test against the internal test, a panel per figure; on the line nothing is lost.

    Args:
        table: columns `metric`, `place`, `inside`, `outside`.
    """
    metrics, places = list(dict.fromkeys(table["metric"])), list(dict.fromkeys(table["place"]))
    figure, axes = sheet(7.6, 4.3, columns=len(metrics))
    colours = [f"C{i}" for i in range(10)]
    for axis, metric in zip(axes[0], metrics, strict=True):
        own = table[table["metric"] == metric]
        for place, colour in zip(places, cycle(colours), strict=False):
            chosen = own[own["place"] == place]
            axis.plot(
                chosen["inside"], chosen["outside"], "o", ms=3.2, color=colour, alpha=0.7, mec="none", label=place
            )
        low = float(np.nanmin([own["inside"].min(), own["outside"].min(), 1.0]))
        axis.plot([low, 1], [low, 1], color=INK, linewidth=0.7, linestyle=":")
        axis.set_aspect("equal")
        axis.set_xlabel(f"{metric.replace(chr(10), ' ')}, internal", fontsize=8)
        axis.set_ylabel("external", fontsize=8)
    _legend(figure, axes[0, 0], ncols=5)
    return figure


def _legend(figure: Figure, axis: Axes, ncols: int = 3) -> None:
    handles, names = axis.get_legend_handles_labels()
    figure.legend(handles, names, fontsize=8, loc="outside upper center", ncols=ncols, frameon=False)


def banded_curves(curves: Mapping[str, Mapping[str, CurveBands]], prevalence: Mapping[str, float]) -> Figure:
    """ROC above, precision-recall below, a column per task, a line with its band per model.

    Args:
        curves: task → model → curves over `GRID`.
        prevalence: by task, where precision's dotted line stands.
    """
    figure, axes = sheet(7.6, 4.1, rows=2, columns=len(curves))
    for column, (task, models) in enumerate(curves.items()):
        for (model, found), colour in zip(models.items(), cycle(MODEL_COLOURS), strict=False):
            for axis, band in zip(axes[:, column], (found.roc, found.precision), strict=True):
                axis.fill_between(GRID, band.low, band.high, color=colour, alpha=0.18, linewidth=0)
                axis.plot(GRID, band.value, color=colour, linewidth=1.1, label=model)
        axes[0, column].plot([0, 1], [0, 1], color=INK, linewidth=0.7, linestyle=":")
        axes[1, column].axhline(prevalence[task], color=INK, linewidth=0.7, linestyle=":")
        axes[0, column].set_title(task, fontsize=7.5, color=INK)
        axes[0, column].set_xlabel("1 - specificity", fontsize=_SMALL)
        axes[1, column].set_xlabel("recall", fontsize=_SMALL)
        for axis in axes[:, column]:
            axis.set_ylim(0, 1.02)
            axis.tick_params(labelsize=_SMALL)
    axes[0, 0].set_ylabel("sensitivity", fontsize=8)
    axes[1, 0].set_ylabel("precision", fontsize=8)
    _legend(figure, axes[0, 0])
    return figure


def reliability(tasks: Mapping[str, pd.DataFrame]) -> Figure:
    """Observed share over predicted probability, a panel per task, with the diagonal.

    Args:
        tasks: by name, columns `predicted`, `observed`, `low`, `high`, a row per bin.
    """
    figure, axes = sheet(7.6, 2.3, columns=len(tasks))
    for axis, (task, bins) in zip(axes[0], tasks.items(), strict=True):
        axis.vlines(bins["predicted"], bins["low"], bins["high"], color=MODEL_COLOURS[0], linewidth=1)
        axis.plot(bins["predicted"], bins["observed"], "o-", color=MODEL_COLOURS[0], ms=3, lw=0.9)
        top = float(np.nanmax([bins["predicted"].max(), bins["high"].max()]))
        axis.plot([0, top], [0, top], color=INK, linewidth=0.7, linestyle=":")
        axis.set_title(task, fontsize=7.5, color=INK)
        axis.set_xlabel("predicted", fontsize=_SMALL)
        axis.tick_params(labelsize=_SMALL)
    axes[0, 0].set_ylabel("observed", fontsize=8)
    return figure
