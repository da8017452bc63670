"""The figures of a report: each takes plain arrays or a table and returns a matplotlib figure.

Built on `Figure` objects alone (no pyplot): reports are written from threads and services without a display.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from matplotlib import color_sequences, rc_context
from matplotlib.figure import Figure
from sklearn.metrics import precision_recall_curve, roc_curve

INK = "#1f2933"
MODEL_COLOURS = ("#0b6e99", "#9aa5b1", "#d97706", "#7c3aed", "#15803d")
GRID = {"color": "#e4e7eb", "linewidth": 0.6}


def sheet(width_in: float, height_in: float, rows: int = 1, columns: int = 1) -> tuple[Figure, np.ndarray]:
    """An empty figure in the report's style and its axes `[rows, columns]`."""
    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8, colors=INK)
        axis.grid(True, **GRID)
        axis.set_axisbelow(True)
    return figure, axes


def as_svg(figure: Figure) -> str:
    """The figure as an `<svg>` element to put inline; equal figures give equal text, and text stays text.

    The XML prologue, metadata and name spaces are left out: HTML needs none of them.
    """
    buffer = io.StringIO()
    with rc_context({"svg.hashsalt": "ecgclip", "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = buffer.getvalue()
    return re.sub(r' xmlns(:\w+)?="[^"]*"', "", text[text.index("<svg") :])


def as_png_uri(figure: Figure, dpi: int = 100) -> str:
    """The figure as a `data:` address of a PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def training_curves(history: pd.DataFrame) -> Figure:
    """Loss, learning rate and throughput over steps.

    Args:
        history: one row per logged step with `step` and any of `loss`, `learning_rate`, `ecg_per_s`.
    """
    panels = [
        (column, title)
        for column, title in (("loss", "loss"), ("learning_rate", "learning rate"), ("ecg_per_s", "ECG/s"))
        if column in history and history[column].notna().any()
    ]
    figure, axes = sheet(3.2 * max(len(panels), 1), 2.3, columns=max(len(panels), 1))
    for axis, (column, title) in zip(axes.flat, panels, strict=False):
        known = history[["step", column]].dropna()
        axis.plot(known["step"], known[column], color=MODEL_COLOURS[0], linewidth=1.2)
        axis.set_title(title, fontsize=9, color=INK)
        axis.set_xlabel("step", fontsize=8)
    return figure


def forest(table: pd.DataFrame, metric: str, reference: float | None = None) -> Figure:
    """Labels × models with their 95 % intervals, sorted by the first model's value.

    Args:
        table: columns `label`, `model`, `value`, `ci_low`, `ci_high`, `n_positives`.
        metric: the axis title.
        reference: where a vertical line stands (0.5 for AUROC).
    """
    models = list(dict.fromkeys(table["model"]))
    first = table[table["model"] == models[0]].sort_values("value")
    labels = list(first["label"])
    figure, axes = sheet(7.2, (0.14 + 0.05 * len(models)) * len(labels) + 1.2)
    axis = axes[0, 0]
    offsets = np.linspace(0.25, -0.25, len(models)) if len(models) > 1 else [0.0]
    for model, offset, colour in zip(models, offsets, cycle(MODEL_COLOURS), strict=False):
        rows = table[table["model"] == model].set_index("label").reindex(labels)
        height = np.arange(len(labels)) + offset
        axis.hlines(height, rows["ci_low"], rows["ci_high"], color=colour, linewidth=1.4)
        axis.plot(rows["value"], height, "o", color=colour, markersize=3.6, label=model)
    positives = dict(zip(first["label"], first["n_positives"], strict=True))
    axis.set_yticks(range(len(labels)), [f"{name}  (n={int(positives[name])})" for name in labels])
    axis.set_ylim(-0.7, len(labels) - 0.3)
    if reference is not None:
        axis.axvline(reference, color=INK, linewidth=0.8, linestyle=":")
    axis.set_xlabel(f"{metric}, 95 % interval by patient bootstrap", fontsize=8)
    figure.legend(fontsize=8, loc="outside upper center", ncols=3, frameon=False)
    return figure


def roc_and_pr(curves: Mapping[str, tuple[Bool[np.ndarray, " n"], Float[np.ndarray, " n"]]]) -> Figure:
    """ROC and precision-recall curves, one line per label; dotted lines mark chance and each prevalence.

    Args:
        curves: label → (truth, score), one entry per ECG.
    """
    figure, axes = sheet(7.6, 3.7 + 0.2 * -(-len(curves) // 3), columns=2)
    roc, precision = axes[0]
    for (label, (truth, score)), colour in zip(curves.items(), cycle(color_sequences["tab10"]), strict=False):
        false_positive, true_positive, _ = roc_curve(truth, score)
        roc.plot(false_positive, true_positive, linewidth=1.1, color=colour, label=f"{label} (n={int(truth.sum())})")
        found, recall, _ = precision_recall_curve(truth, score)
        # scikit-learn ends the curve at precision 1 by definition; drawn, that is a spike that no threshold reaches.
        found[-1] = found[-2]
        precision.plot(recall, found, linewidth=1.1, color=colour, drawstyle="steps-post")
        precision.axhline(truth.mean(), color=colour, linewidth=0.7, linestyle=":")
    roc.plot([0, 1], [0, 1], color=INK, linewidth=0.7, linestyle=":")
    precision.set_ylim(0, 1.02)
    for axis, names in ((roc, ("1 - specificity", "sensitivity")), (precision, ("recall", "precision"))):
        axis.set_xlabel(names[0], fontsize=9)
        axis.set_ylabel(names[1], fontsize=9)
    figure.legend(fontsize=8, loc="outside lower center", ncols=3, frameon=False)
    return figure


def embedding_map(
    points: Float[np.ndarray, "n 2"], groups: Sequence[tuple[str, Sequence[str]]], most: int = 10
) -> Figure:
    """A two-dimensional map of embeddings, once for each way of colouring it.

    Args:
        points: coordinates of each ECG.
        groups: (title, one category per point); the `most` frequent categories get a colour, the rest is grey.
    """
    figure, axes = sheet(4.3 * len(groups), 3.9, columns=len(groups))
    for axis, (title, categories) in zip(axes.flat, groups, strict=True):
        names = np.asarray(categories, dtype=object)
        frequent = list(pd.Series(names).value_counts().index[:most])
        rest = ~np.isin(names, frequent)
        axis.scatter(*points[rest].T, s=3, color="#d3d8de", linewidths=0)
        for name in frequent:
            chosen = names == name
            axis.scatter(*points[chosen].T, s=4, linewidths=0, label=f"{name} ({int(chosen.sum())})")
        axis.set_title(title, fontsize=9, color=INK)
        axis.set(xticks=[], yticks=[])
        axis.legend(fontsize=6, markerscale=2.5, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def people_bars(bands: Mapping[str, Mapping[str, int | str]]) -> Figure:
    """Recordings by age band and sex, as bars beside each other; counts given as text (suppressed) are left out."""
    figure, axes = sheet(6.4, 2.4)
    axis = axes[0, 0]
    sexes = [
        sex
        for sex in ("female", "male", "unknown")
        if any(isinstance(of[sex], int) and of[sex] for of in bands.values())
    ]
    width = 0.8 / max(len(sexes), 1)
    for number, sex in enumerate(sexes):
        heights = [count if isinstance(count := of[sex], int) else 0 for of in bands.values()]
        places = np.arange(len(bands)) + (number - (len(sexes) - 1) / 2) * width
        axis.bar(places, heights, width * 0.92, color=MODEL_COLOURS[number], label=sex)
    axis.set_xticks(np.arange(len(bands)), list(bands))
    axis.set_xlabel("age (years)", fontsize=8)
    axis.set_ylabel("recordings", fontsize=8)
    if sexes:
        axis.legend(fontsize=8, frameon=False)
    return figure
