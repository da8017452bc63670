"""The sections about results: summary with intervals, labels one by one, curves, what was left out and why."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from ecgclip_jax.evaluation.results import SMALLEST_CELL, ResultRow, Results
from ecgclip_jax.reporting.content import Section, TableContent, drawn, with_interval
from ecgclip_jax.reporting.figures import forest, roc_and_pr
from ecgclip_jax.text.concepts import CONCEPTS

CURVES = 6
"""Labels drawn as curves: those with most positives among the test patients."""
_PROTOCOLS = {"zero_shot": "zero-shot", "linear_probe": "linear probe", "retrieval": "retrieval"}
_METRICS = {"auroc": "AUROC", "average_precision": "PRAUC"}
_DIRECTIONS = {"ecg_to_text": "ECG → report", "text_to_ecg": "report → ECG"}


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
    whole = next((row for row in rows if row.label == "macro"), first)
    notes = [f"{_count(whole.n)} ECGs of {_count(whole.n_patients)} patients. Intervals: 95 %, patient bootstrap."]
    notes += sorted({row.note for row in rows if row.note and row.label == "macro"})
    drawings = []
    for protocol in ("zero_shot", "linear_probe"):
        levels = _levels(rows, protocol, "auroc")
        if not levels.empty:
            caption = f"AUROC per label, {_PROTOCOLS[protocol]}; n = positives. The dotted line is chance."
            drawings.append(drawn(forest(levels, "AUROC", reference=0.5), caption))
    smallest = 1 if first.access == "open" else SMALLEST_CELL
    curves = _curves(folder / f"predictions-{first.cohort}-{first.version}-{first.split}.parquet", smallest)
    if curves:
        caption = "Zero-shot ROC and precision-recall of the pre-trained model; dotted: chance, and each prevalence."
        drawings.append(drawn(roc_and_pr(curves), caption))
    summary = [t for t in (_macro_table(rows), _retrieval_table(rows)) if t.rows]
    single = [t for t in (_label_table(rows), _excluded(rows)) if t.rows]
    return Section(f"Results: {place_name(first)}", notes, blocks=[*summary, *drawings, *single])


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
    """A line for each model under each protocol, a column per metric and group of labels."""
    macro = [row for row in rows if row.label == "macro"]
    groups = [g for g in ("seen", "unseen", "unknown", "all") if any(row.label_group == g for row in macro)]
    columns = {(m, g): f"{_METRICS[m]}\n{g}" for m in ("auroc", "average_precision") for g in groups}
    parts = {}
    for protocol in dict.fromkeys(row.protocol for row in macro):
        own = [row for row in macro if row.protocol == protocol]
        labels = {row.label_group: row.n_labels for row in own}
        told = ", ".join(f"{labels[g] or 0} {g}" for g in groups if g in labels)
        parts[f"{_PROTOCOLS.get(protocol, protocol)} (labels: {told})"] = own
    return _scoreboard(
        "Macro means over labels, and their paired differences on the same patient draws",
        parts,
        columns,
        "Seen labels are named in training reports, unseen ones never. PRAUC is average precision, its chance the "
        "mean prevalence. What is left out of the means is listed below.",
    )


def _retrieval_table(rows: list[ResultRow]) -> TableContent:
    """A line for each model in each direction, a column per metric."""
    retrieval = [row for row in rows if row.protocol == "retrieval"]
    columns = {(row.metric, ""): row.metric.replace("_", " ") for row in retrieval}
    parts = {}
    for direction in dict.fromkeys(row.label for row in retrieval):
        own = [row for row in retrieval if row.label == direction]
        parts[f"{_DIRECTIONS.get(direction, direction)} ({_count(own[0].n)} queries)"] = own
    note = "A report that is word for word the same as the right one counts as found."
    return _scoreboard("Retrieval of reports and ECGs", parts, columns, note)


def _scoreboard(
    title: str, parts: Mapping[str, list[ResultRow]], columns: Mapping[tuple[str, str], str], note: str
) -> TableContent:
    """In every part the models' levels, then chance, then the differences; a column per (metric, label group)."""
    lines: list[list[str]] = []
    for part, rows in parts.items():
        arms = dict.fromkeys((row.model, row.compared_with) for row in rows)
        found = {(row.model, row.compared_with, row.metric, row.label_group): row for row in rows}
        levels = [arm for arm in arms if not arm[1]]
        lines.append([part])
        for model, other in levels:
            lines.append([model, *(_cell(found.get((model, other, *column)), "\n") for column in columns)])
        chances = (found.get((*levels[0], *column)) for column in columns) if levels else ()
        lines.append(["chance", *(_number(row.chance, row.metric) if row else "–" for row in chances)])
        for model, other in (arm for arm in arms if arm[1]):
            cells = (_cell(found.get((model, other, *column)), "\n") for column in columns)
            lines.append([f"{model} − {other}", *cells])
    numeric = range(1, 1 + len(columns))
    return TableContent(["model", *columns.values()], lines, title=title, note=note, numeric=numeric)


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
    heads = [f"{_PROTOCOLS[p]}\n{_METRICS[m]}" for p, m in columns]
    return TableContent(
        ["label", "group", "positives", "prevalence", *heads], cells, title=f"Labels, {first}", numeric=range(2, 8)
    )


def _cell(row: ResultRow | None, between: str = " ") -> str:
    """A value with its interval, or why there is none."""
    if row is None:
        return "–"
    if row.excluded:
        return row.excluded.replace("_", " ")
    form = _form(row.metric, signed=bool(row.compared_with))
    return with_interval(row.value, row.ci_low, row.ci_high, form=form, between=between)


def _number(value: float, metric: str) -> str:
    return format(value, _form(metric)) if math.isfinite(value) else "–"


def _form(metric: str, signed: bool = False) -> str:
    """Ranks are whole numbers, everything else is a share."""
    return ("+" if signed else "") + (".0f" if metric == "median_rank" else ".3f")


def _count(n: int | None) -> str:
    return "fewer than ten" if n is None else f"{n:,}"


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


def _curves(path: Path, smallest: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Truth and zero-shot score of the labels with most positives, if both classes have `smallest` ECGs."""
    if not path.is_file():
        return {}
    table = pd.read_parquet(path)
    table = table[table["known"]]
    columns = [str(c) for c in table if "/zero_shot/" in str(c)]
    model = columns[0].split("/")[1] if columns else ""
    positives = {k: int(table[f"label/{k}"].sum()) for k in dict.fromkeys(c.split("/")[-1] for c in columns)}
    usable = [k for k, n in positives.items() if smallest <= n <= len(table) - smallest]
    return {
        concept_name(k): (
            table[f"label/{k}"].to_numpy(bool),
            table[f"score/{model}/zero_shot/{k}"].to_numpy(np.float32),
        )
        for k in sorted(usable, key=lambda k: -positives[k])[:CURVES]
    }
