"""The run with fewer leads, at lower rates, and with other windows between ECG and echo, in a suite's report."""

from __future__ import annotations

from typing import Final

import pandas as pd

from ecgclip_jax.evaluation.index_ecg import DEFAULT_WINDOW
from ecgclip_jax.reporting.content import Section, TableContent
from ecgclip_jax.reporting.suite_rows import AUROC, Stratum, SuiteTable, fit_name, levels, records
from ecgclip_jax.reporting.suite_tables import narrow_cell
from ecgclip_jax.spec.suites import PRETRAINED

_TITLES: Final = {
    "leads": "Fewer leads",
    "rate_hz": "Lower rates",
    "index_ecg": "Windows between ECG and echo",
}
_NOTES: Final = {
    "leads": "The encoder as it is, given these leads alone; the others are missing. The probe learns from the same "
    "leads. 8 leads: I, II, V1 to V6; 6: the limb leads; 3: I, II, V2; 2: I, II; 1: I.",
    "rate_hz": "The encoder as it is, given ECGs that were sampled down to a rate and up again. The probe learns from "
    "the same.",
    "index_ecg": "Tasks of an echo alone, the same probe: which of a patient's ECGs is tested changes, and with it who "
    f"is. Everywhere else in this report it is the ECG {DEFAULT_WINDOW.name}.",
}


def axis_sections(table: SuiteTable) -> list[Section]:
    """A section per axis: settings × tests, beside the ECGs as they were recorded."""
    sections = []
    for axis, title in _TITLES.items():
        if (own := table.axes[table.axes["axis"] == axis] if len(table.axes) else table.axes).empty:
            continue
        blocks = [block for stratum in table.strata for block in _tables(table, own, stratum)]
        sections.append(Section(title, [_NOTES[axis]], blocks=blocks))
    return sections


def _tables(table: SuiteTable, rows: pd.DataFrame, stratum: Stratum) -> list[TableContent]:
    """Macro AUROC, one table per stratum: protocols as headings, settings as lines."""
    mine = (rows["home"] == stratum.cohorts) & (rows["availability"] == stratum.availability)
    changed = levels(rows[mine & (rows["label_group"] == stratum.source)], AUROC, macro=True)
    changed = changed[changed["n_labels"] > 0]
    if changed.empty:
        return []
    base = levels(table.of(stratum), AUROC, macro=True)
    base = base[(base["model"] == PRETRAINED) & (base["label_fraction"] == 1.0)].assign(setting="as recorded")
    base = base[:0] if (changed["axis"] == "index_ecg").any() else base
    places = [t.name for t in table.real_sets[stratum.cohorts].tests if t.name in set(changed["split"])]
    lines: list[list[str]] = []
    for protocol in dict.fromkeys(changed["protocol"]):
        lines.append([fit_name(protocol, 1.0)])
        own = pd.concat([base[base["protocol"] == protocol], changed[changed["protocol"] == protocol]])
        cells = {(r.setting, r.split): r for r in records(own)}
        for setting in dict.fromkeys(own["setting"]):
            counts = sorted({int(r.n_labels) for (s, _), r in cells.items() if s == setting})
            found = [cells.get((setting, place)) for place in places]
            lines.append(
                [setting, "–".join(map(str, {counts[0]: 0, counts[-1]: 0}))]
                + ["–" if r is None else narrow_cell(r) for r in found]
            )
    columns = ["setting", "tasks", *places]
    return [TableContent(columns, lines, title=f"{stratum.title}: macro AUROC", numeric=range(1, len(columns)))]
