"""What zero-shot figures owe to the choice of words: every set of prompts beside the others."""

from __future__ import annotations

import math

import pandas as pd

from ecgclip_jax.reporting.content import Section, TableContent
from ecgclip_jax.reporting.suite_rows import AUROC, Stratum, SuiteTable, levels, records
from ecgclip_jax.reporting.suite_tables import narrow_cell
from ecgclip_jax.spec.suites import PRETRAINED


def wording_section(table: SuiteTable) -> list[Section]:
    """Macro AUROC of the run under each set of prompts, and their spread; none without zero-shot."""
    if table.wordings.empty:
        return []
    blocks = [block for stratum in table.strata if (block := _wordings(table, stratum)).rows]
    if not blocks:
        return []
    first = table.spec.prompt_sets[0].replace("_", " ")
    notes = [
        f"Zero-shot of the run under every set of prompts. The headline set, named beforehand, is “{first}”: it alone "
        "stands in the other tables. Spread: highest minus lowest of the sets that score the same tasks; a set that "
        "lacks a task of the mean is shown with the number it has."
    ]
    return [Section("Sensitivity to wording", notes, blocks=blocks)]


def _wordings(table: SuiteTable, stratum: Stratum) -> TableContent:
    own = table.wordings
    own = own[(own["home"] == stratum.cohorts) & (own["label_group"] == stratum.source)]
    own = levels(own[(own["availability"] == stratum.availability) & (own["model"] == PRETRAINED)], AUROC, macro=True)
    places = [test.name for test in table.real_sets[stratum.cohorts].tests if test.name in set(own["split"])]
    lines = []
    for words, rows in own.groupby("prompt_set", sort=False):
        cells = {row.split: f"{narrow_cell(row)} ({row.n_labels:g})" for row in records(rows)}
        lines.append([str(words).replace("_", " "), *(cells.get(place, "–") for place in places)])
    if lines:
        spread = own.groupby("split")["prompt_spread"].max()
        lines.append(["spread", *(_plain(spread, place) for place in places)])
    title = f"{stratum.title}: macro AUROC (tasks), {PRETRAINED}"
    return TableContent(["prompts", *places], lines, title=title, numeric=range(1, 1 + len(places)))


def _plain(values: pd.Series, place: str) -> str:
    value = float(values[place])
    return f"{value:.3f}" if math.isfinite(value) else "–"
