"""A suite's models at thresholds stored from validation, and how true their probabilities are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import pandas as pd

from ecgclip_jax.reporting.content import Section, TableContent
from ecgclip_jax.reporting.suite_rows import PROTOCOLS, Row, Stratum, SuiteTable, levels, records, task_name
from ecgclip_jax.reporting.suite_tables import macro_cell
from ecgclip_jax.spec.suites import PRETRAINED

COLUMNS: Final[Mapping[str, str]] = {
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "ppv": "PPV",
    "alerts_per_1000": "alerts per\n1,000 ECGs",
    "sensitivity_at_specificity_0.9": "sensitivity at\nspecificity 0.9",
    "brier": "Brier",
    "expected_calibration_error": "ECE",
    "calibration_slope": "calibration\nslope",
    "calibration_intercept": "calibration\nintercept",
}
"""In the order in which they stand."""


def operating_section(table: SuiteTable) -> list[Section]:
    """Macro means of every model with stored points, and the run's single tasks, on the internal tests."""
    blocks: list[TableContent] = []
    for stratum in table.strata:
        rows = table.of(stratum)
        rows = rows[(rows["split"] == table.internal(stratum)) & (rows["label_fraction"] == 1.0)]
        blocks += [*_means(rows, stratum), *_tasks(rows, stratum)]
    note = (
        "Thresholds (Youden's, per task) and one temperature per model come from validation alone and are stored with "
        "the results. PPV, alerts and calibration are weighted back to the source's prevalence. Models learnt from a "
        "case-enriched sample where there is one, so that their risks are too high in the source: the intercept, whose "
        "target is 0, is then negative; the slope's target is 1. Sensitivity at a fixed specificity has its threshold "
        "from the test itself and is over all training seeds in macro means; everything else is of the first model "
        "whose validation scores were kept."
    )
    return [Section("Operating points and calibration", [note], blocks=blocks)] if blocks else []


def _means(rows: pd.DataFrame, stratum: Stratum) -> list[TableContent]:
    there = rows[(rows["metric"] == "ppv") & (rows["label"] == "macro")]
    fits = dict.fromkeys((r.protocol, r.model) for r in records(there))
    cells: dict[tuple[str, ...], Row] = {(r.protocol, r.model, r.metric): r for r in _levels(rows, macro=True)}
    lines = [
        [f"{model}, {PROTOCOLS.get(protocol, protocol)}", *_cells(cells, (protocol, model))] for protocol, model in fits
    ]
    return [_table("model", lines, f"{stratum.title}: macro means")] if lines else []


def _tasks(rows: pd.DataFrame, stratum: Stratum) -> list[TableContent]:
    """Of the run, fine-tuned if that has points, else probed."""
    own = rows[rows["model"] == PRETRAINED]
    for protocol in ("fine_tune", "linear_probe"):
        found = _levels(own[own["protocol"] == protocol], macro=False)
        cells: dict[tuple[str, ...], Row] = {(r.label, r.metric): r for r in found}
        labels = [r.label for r in found if r.metric == "ppv" and not r.excluded]
        if labels:
            lines = [[task_name(label), *_cells(cells, (label,), brief=True)] for label in labels]
            return [_table("task", lines, f"{stratum.title}: the run's tasks, {PROTOCOLS[protocol]}")]
    return []


def _levels(rows: pd.DataFrame, *, macro: bool) -> list[Row]:
    return [r for metric in COLUMNS for r in records(levels(rows, metric, macro=macro))]


def _cells(cells: Mapping[tuple[str, ...], Row], key: tuple[str, ...], *, brief: bool = False) -> list[str]:
    found = [cells.get((*key, metric)) for metric in COLUMNS]
    return ["–" if r is None else _cell(r, brief) for r in found]


def _cell(row: Row, brief: bool) -> str:
    """The value with its interval; `brief` leaves the interval to the results table."""
    digits = 1 if row.metric == "alerts_per_1000" else 3
    if row.excluded or not brief:
        return macro_cell(row, digits)
    return f"{row.value:.{digits}f}".replace("-", "−")


def _table(first: str, lines: Sequence[list[str]], title: str) -> TableContent:
    return TableContent([first, *COLUMNS.values()], list(lines), title=title, numeric=range(1, 1 + len(COLUMNS)))
