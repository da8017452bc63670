"""The sections about results: summary with intervals, labels one by one, curves, what was left out and why."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ecgclip_jax.evaluation.results import ResultRow, Results
from ecgclip_jax.reporting.content import Section, TableContent, drawn, with_interval
from ecgclip_jax.reporting.figures import forest, roc_and_pr
from ecgclip_jax.text.concepts import CONCEPTS

CURVES = 6
"""Labels drawn as curves: those with most positives among the test patients."""
_PROTOCOLS = {"zero_shot": "zero-shot", "linear_probe": "linear probe", "retrieval": "retrieval"}
_METRICS = {"auroc": "AUROC", "average_precision": "PRAUC (average precision)"}


def concept_name(key: str) -> str:
    """The name a person reads."""
    return CONCEPTS[key].name if key in CONCEPTS else key


def place_name(row: ResultRow) -> str:
    """Cohort and split, marked where the numbers are synthetic."""
    return f"{row.cohort} {row.version}, {row.split}" + (" (synthetic)" if row.synthetic else "")


def result_sections(results: Results, evaluation_folder: Path) -> list[Section]:
    """One section per test split."""
    places = dict.fromkeys((row.cohort, row.version, row.split) for row in results.rows)
    return [
        _place_section([r for r in results.rows if (r.cohort, r.version, r.split) == p], evaluation_folder)
        for p in places
    ]


def _place_section(rows: list[ResultRow], folder: Path) -> Section:
    first = rows[0]
    notes = [f"{first.n:,} ECGs of {first.n_patients:,} patients. Intervals: 95 %, patient bootstrap."]
    notes += sorted({row.note for row in rows if row.note and row.label == "macro"})
    figures = []
    for protocol in ("zero_shot", "linear_probe"):
        levels = _levels(rows, protocol, "auroc")
        if not levels.empty:
            caption = f"AUROC per label, {_PROTOCOLS[protocol]}; n = positives. The dotted line is chance."
            figures.append(drawn(forest(levels, "AUROC", reference=0.5), caption))
    curves = _curves(folder / f"predictions-{first.cohort}-{first.version}-{first.split}.parquet")
    if curves:
        caption = "Zero-shot ROC and precision-recall of the pre-trained model; dotted: chance, and each prevalence."
        figures.append(drawn(roc_and_pr(curves), caption))
    tables = [_macro_table(rows), _retrieval_table(rows), _difference_table(rows), _label_table(rows), _excluded(rows)]
    return Section(f"Results: {place_name(first)}", notes, tables=[t for t in tables if t.rows], figures=figures)


def _levels(rows: list[ResultRow], protocol: str, metric: str) -> pd.DataFrame:
    chosen = [
        {
            "label": concept_name(r.label), "model": r.model, "value": r.value,
            "ci_low": r.ci_low, "ci_high": r.ci_high, "n_positives": r.n_positives or 0,
        }
        for r in rows
        if r.protocol == protocol and r.metric == metric and r.label != "macro" and not r.compared_with
        and math.isfinite(r.value)
    ]  # fmt: skip
    return pd.DataFrame(chosen)


def _macro_table(rows: list[ResultRow]) -> TableContent:
    chosen = [r for r in rows if r.label == "macro" and not r.compared_with]
    cells = [
        [r.model, _PROTOCOLS.get(r.protocol, r.protocol), _METRICS.get(r.metric, r.metric), r.label_group,
         str(r.n_labels or 0), with_interval(r.value, r.ci_low, r.ci_high)]
        for r in chosen
    ]  # fmt: skip
    return TableContent(
        ["model", "protocol", "metric", "labels", "how many", "macro mean (95 % interval)"],
        cells,
        title="Macro means",
        note="`seen`: named in training reports; `unseen`: never named there. Undefined labels are listed below.",
        numeric=(4, 5),
    )


def _retrieval_table(rows: list[ResultRow]) -> TableContent:
    chosen = [r for r in rows if r.protocol == "retrieval" and not r.compared_with]
    cells = [
        [r.model, r.label.replace("_", " "), r.metric, with_interval(r.value, r.ci_low, r.ci_high), f"{r.chance:.3f}"]
        for r in chosen
    ]
    return TableContent(
        ["model", "direction", "metric", "value (95 % interval)", "chance"],
        cells,
        title="Retrieval of reports and ECGs",
        note="A report that is word for word the same as the right one counts as found.",
        numeric=(3, 4),
    )


def _difference_table(rows: list[ResultRow]) -> TableContent:
    chosen = [r for r in rows if r.compared_with and r.label == "macro"]
    cells = [
        [f"{r.model} − {r.compared_with}", _PROTOCOLS.get(r.protocol, r.protocol), _METRICS.get(r.metric, r.metric),
         r.label_group, with_interval(r.value, r.ci_low, r.ci_high)]
        for r in chosen
    ]  # fmt: skip
    return TableContent(
        ["difference", "protocol", "metric", "labels", "macro difference (95 % interval)"],
        cells,
        title="Paired differences, on the same patient draws",
        numeric=(4,),
    )


def _label_table(rows: list[ResultRow]) -> TableContent:
    first = rows[0].model
    chosen = [
        r for r in rows if r.model == first and r.label != "macro" and not r.compared_with and r.protocol != "retrieval"
    ]
    by_label: dict[str, dict[tuple[str, str], ResultRow]] = {}
    for row in chosen:
        by_label.setdefault(row.label, {})[row.protocol, row.metric] = row
    columns = [(p, m) for p in ("zero_shot", "linear_probe") for m in ("auroc", "average_precision")]
    cells = []
    for label, found in by_label.items():
        some = next(iter(found.values()))
        positives = "suppressed" if some.n_positives is None else str(some.n_positives)
        numbers = [_cell(found.get(column)) for column in columns]
        cells.append([concept_name(label), some.label_group, positives, _percent(some.prevalence), *numbers])
    heads = [f"{_PROTOCOLS[p]} {_METRICS[m].split(' ')[0]}" for p, m in columns]
    return TableContent(
        ["label", "group", "positives", "prevalence", *heads], cells, title=f"Labels, {first}", numeric=range(2, 8)
    )


def _cell(row: ResultRow | None) -> str:
    return "–" if row is None else with_interval(row.value, row.ci_low, row.ci_high)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if math.isfinite(share) else "–"


def _excluded(rows: list[ResultRow]) -> TableContent:
    left_out: dict[tuple[str, str], set[str]] = {}
    for row in rows:
        if row.label == "macro" and row.excluded_labels:
            for label, reason in json.loads(row.excluded_labels).items():
                left_out.setdefault((label, reason), set()).add(_PROTOCOLS.get(row.protocol, row.protocol))
    cells = [
        [concept_name(label), reason.replace("_", " "), ", ".join(sorted(where))]
        for (label, reason), where in sorted(left_out.items())
    ]
    return TableContent(["label", "why", "protocol"], cells, title="Left out of the macro means")


def _curves(path: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Truth and zero-shot score of the labels with most positives."""
    if not path.is_file():
        return {}
    table = pd.read_parquet(path)
    table = table[table["known"]]
    columns = [str(c) for c in table if "/zero_shot/" in str(c)]
    model = columns[0].split("/")[1] if columns else ""
    labels = sorted(dict.fromkeys(c.split("/")[-1] for c in columns), key=lambda k: -int(table[f"label/{k}"].sum()))
    usable: Sequence[str] = [k for k in labels if 0 < int(table[f"label/{k}"].sum()) < len(table)][:CURVES]
    return {
        concept_name(k): (
            table[f"label/{k}"].to_numpy(bool),
            table[f"score/{model}/zero_shot/{k}"].to_numpy(np.float32),
        )
        for k in usable
    }
