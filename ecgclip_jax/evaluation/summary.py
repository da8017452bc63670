"""The table a person reads in the console: models down, protocols across, intervals in every cell."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.table import Table
from rich.text import Text

from ecgclip_jax.evaluation.results import Exclusion, ResultRow, Results, models_in_order

Column = TypeVar("Column")
_NAME_WIDTH, _CELL_WIDTH = 23, 19
"""Columns of text that a model's name and a figure take, frame included."""
_COLUMNS = (
    ("zero-shot AUROC\nseen", {"protocol": "zero_shot", "label": "macro", "label_group": "seen", "metric": "auroc"}),
    (
        "zero-shot AUROC\nunseen",
        {"protocol": "zero_shot", "label": "macro", "label_group": "unseen", "metric": "auroc"},
    ),
    ("zero-shot AUROC\nall", {"protocol": "zero_shot", "label": "macro", "label_group": "all", "metric": "auroc"}),
    ("probe AUROC\nall", {"protocol": "linear_probe", "label": "macro", "label_group": "all", "metric": "auroc"}),
    (
        "probe PRAUC\nall",
        {"protocol": "linear_probe", "label": "macro", "label_group": "all", "metric": "average_precision"},
    ),
    ("ECG→text\nrecall@10", {"protocol": "retrieval", "label": "ecg_to_text", "metric": "recall@10"}),
    ("text→ECG\nrecall@10", {"protocol": "retrieval", "label": "text_to_ecg", "metric": "recall@10"}),
)


def summary_table(results: Results) -> RenderableType:
    """One table per test split, with the paired differences below the levels and the warnings below it all."""
    parts: list[RenderableType] = []
    for place in dict.fromkeys((r.cohort, r.version, r.split) for r in results.rows):
        rows = [r for r in results.rows if (r.cohort, r.version, r.split) == place]
        parts += [_SplitTable(rows), Text(_footer(rows), style="dim"), Text("")]
    parts += [Text(f"! {warning}", style="yellow") for warning in results.warnings]
    return Group(*parts)


def columns_that_fit(columns: Sequence[Column], width: int, cell_width: int) -> Iterator[Sequence[Column]]:
    """A table's columns, as many at a time as a console has room for, at least one."""
    fitting = max(1, width // cell_width)
    return (columns[start : start + fitting] for start in range(0, len(columns), fitting))


@dataclass(frozen=True)
class _SplitTable:
    """One test split; on a narrow console its columns are spread over several tables, so that no figure is cut."""

    rows: Sequence[ResultRow]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        """The tables that fit the width."""
        columns = [(header, want) for header, want in _COLUMNS if _match(self.rows, want)]
        yield Text(self._title(), style="italic")
        for fitting in columns_that_fit(columns, options.max_width - _NAME_WIDTH, _CELL_WIDTH):
            yield self._table(fitting)

    def _title(self) -> str:
        first = self.rows[0]
        patients = max((row.n_patients or 0 for row in self.rows), default=0)
        kind = "SYNTHETIC data · " if first.synthetic else ""
        return f"{kind}{first.cohort} {first.version} · {first.split} · {patients} patients"

    def _table(self, columns: Sequence[tuple[str, dict[str, str]]]) -> Table:
        table = Table()
        table.add_column("model")
        for header, _ in columns:
            table.add_column(header, justify="right")
        levels = [r for r in self.rows if not r.compared_with]
        for model in models_in_order(levels):
            own = [r for r in levels if r.model == model]
            table.add_row(model, *[_cell(_match(own, want)) for _, want in columns])
        table.add_section()
        differences = [r for r in self.rows if r.compared_with]
        for model, other in dict.fromkeys((r.model, r.compared_with) for r in differences):
            own = [r for r in differences if (r.model, r.compared_with) == (model, other)]
            table.add_row(f"{model} - {other}", *[_cell(_match(own, want), signed=True) for _, want in columns])
        return table


def _match(rows: Sequence[ResultRow], want: dict[str, str]) -> list[ResultRow]:
    return [r for r in rows if all(getattr(r, name) == value for name, value in want.items())]


def _cell(rows: Sequence[ResultRow], *, signed: bool = False) -> str:
    if not rows:
        return "–"
    row = rows[0]
    if row.excluded == Exclusion.FEW_LABELS:
        return f"only {row.n_labels} labels"
    if math.isnan(row.value):
        return row.excluded.replace("_", " ") or "undefined"
    form = "{:+.3f}" if signed else "{:.3f}"
    labels = f" of {row.n_labels}" if row.n_labels else ""
    return f"{form.format(row.value)}{labels}\n[{form.format(row.ci_low)}, {form.format(row.ci_high)}]"


def _footer(rows: Sequence[ResultRow]) -> str:
    first = rows[0]
    excluded = {r.label: r.excluded for r in rows if r.excluded and r.label != "macro" and not r.compared_with}
    listed = ", ".join(
        f"{count} {reason.replace('_', ' ')}" for reason, count in sorted(Counter(excluded.values()).items())
    )
    parts = [
        f"macro means over labels with their number; 95 % intervals from {first.replicates} patient draws",
        "zero-shot scores are similarities, not probabilities",
    ]
    if listed:
        parts.append(f"labels not scored: {listed} (named in results.parquet)")
    return "; ".join(parts) + "."
