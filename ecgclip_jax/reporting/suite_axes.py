"""The run with fewer leads, at lower rates, and with other windows between ECG and echo, in a suite's report."""

from __future__ import annotations

from typing import Final

import pandas as pd

from ecgclip_jax.evaluation.index_ecg import DEFAULT_WINDOW
from ecgclip_jax.reporting.content import FigureContent, Section, TableContent, drawn
from ecgclip_jax.reporting.suite_figures import setting_curves
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
        blocks = [block for stratum in table.strata for block in _blocks(table, own, stratum)]
        sections.append(Section(title, [_NOTES[axis]], blocks=blocks))
    return sections


def _blocks(table: SuiteTable, rows: pd.DataFrame, stratum: Stratum) -> list[TableContent | FigureContent]:
    """Macro AUROC of a stratum, as curves and as a table."""
    found = _settings(table, rows, stratum)
    if found.empty:
        return []
    tests = [test.name for test in table.real_sets[stratum.cohorts].tests]
    places = [name for name in tests if name in set(found["split"])]
    curves = found.assign(panel=[fit_name(p, 1.0) for p in found["protocol"]], place=found["split"])
    caption = f"{stratum.title}: macro AUROC; band: 95 % interval of {tests[0]}. Numbers of tasks stand in the table."
    return [drawn(setting_curves(curves, tests[0]), caption), _settings_table(found, places, stratum)]


def _settings(table: SuiteTable, rows: pd.DataFrame, stratum: Stratum) -> pd.DataFrame:
    """Macro AUROC under every setting, the ECGs as recorded first where they have the same tasks."""
    mine = (rows["home"] == stratum.cohorts) & (rows["availability"] == stratum.availability)
    changed = levels(rows[mine & (rows["label_group"] == stratum.source)], AUROC, macro=True)
    changed = changed[changed["n_labels"] > 0]
    if changed.empty or (changed["axis"] == "index_ecg").any():
        return changed
    base = levels(table.of(stratum), AUROC, macro=True)
    base = base[(base["model"] == PRETRAINED) & (base["label_fraction"] == 1.0)].assign(setting="as recorded")
    known = base["protocol"].isin(changed["protocol"]) & base["split"].isin(changed["split"])
    return pd.concat([base[known], changed])


def _settings_table(found: pd.DataFrame, places: list[str], stratum: Stratum) -> TableContent:
    """Protocols as headings, settings as lines, tests as columns."""
    lines: list[list[str]] = []
    for protocol in dict.fromkeys(found["protocol"]):
        lines.append([fit_name(protocol, 1.0)])
        own = found[found["protocol"] == protocol]
        cells = {(r.setting, r.split): r for r in records(own)}
        for setting in dict.fromkeys(own["setting"]):
            counts = sorted({int(r.n_labels) for (s, _), r in cells.items() if s == setting})
            values = [cells.get((setting, place)) for place in places]
            lines.append(
                [setting, "–".join(map(str, {counts[0]: 0, counts[-1]: 0}))]
                + ["–" if r is None else narrow_cell(r) for r in values]
            )
    columns = ["setting", "tasks", *places]
    return TableContent(columns, lines, title=f"{stratum.title}: macro AUROC", numeric=range(1, len(columns)))
