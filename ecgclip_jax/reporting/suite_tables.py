"""Tables of a suite's report: macro means per source of labels, models × tasks, what is not scored, what is not run."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence

import pandas as pd

from ecgclip_jax.evaluation.registry import tasks
from ecgclip_jax.evaluation.results import Exclusion
from ecgclip_jax.reporting.content import Section, TableContent, with_interval
from ecgclip_jax.reporting.suite_rows import (
    AP,
    AP_REFERENCE,
    AUROC,
    FITTED,
    METRICS,
    PROTOCOLS,
    Row,
    SuiteTable,
    fit_name,
    left_out,
    levels,
    main_fit,
    percent,
    records,
    task_name,
)
from ecgclip_jax.spec.suites import PRETRAINED

FULL_SHADE = 0.25
"""Difference at which a cell has its full colour."""


def macro_section(table: SuiteTable) -> Section:
    """Tables per set of cohorts, availability and source of labels."""
    blocks = []
    for stratum in table.strata:
        rows, internal = table.of(stratum), table.internal(stratum)
        places = list(dict.fromkeys(rows["split"]))
        if internal in places:
            blocks.append(_internal_table(rows[rows["split"] == internal], stratum.title))
        blocks += [_places_table(rows, metric, places, stratum.title) for metric in (AUROC, AP_REFERENCE)]
    notes = [
        "Means over the tasks of one source of labels; the tasks that a mean had to leave out are listed below. Within "
        "a heading all models have the same tasks. Intervals: 95 %, patients (and draws, where there are several) "
        "resampled. AP is average precision; its chance is the mean prevalence.",
        "Raw average precision depends on prevalence and is not set side by side across hospitals.",
    ]
    return Section("Macro means", notes, blocks=blocks)


def _fits(rows: pd.DataFrame) -> list[tuple[str, float]]:
    found = {
        (row.protocol, row.label_fraction) for row in records(rows.drop_duplicates(["protocol", "label_fraction"]))
    }
    order = {protocol: place for place, protocol in enumerate(PROTOCOLS)}
    return sorted(found, key=lambda fit: (order.get(fit[0], len(order)), *fit))


def _with_tasks(rows: pd.DataFrame) -> pd.DataFrame:
    """Less the fits that have no task at all: the ceiling of diagnoses that stand on the tracing."""
    return rows[rows.groupby(["protocol", "label_fraction"])["n_labels"].transform("max") > 0]


def _internal_table(rows: pd.DataFrame, title: str) -> TableContent:
    """Every figure of the internal test, models first, then what the run is ahead of them by."""
    macro, lines = _with_tasks(rows[rows["label"] == "macro"]), list[list[str]]()
    for protocol, fraction in _fits(macro):
        own = macro[(macro["protocol"] == protocol) & (macro["label_fraction"] == fraction)]
        n_labels = int(own["n_labels"].max())
        lines.append([f"{fit_name(protocol, fraction)} · {n_labels} tasks, {_draws(own)}"])
        cells = {(r.model, r.compared_with, r.metric): macro_cell(r) for r in records(own)}
        arms = dict.fromkeys((r.model, r.compared_with) for r in records(own))
        for model, other in sorted(arms, key=lambda arm: arm[1] != ""):
            name = f"{model} − {other}" if other else model
            lines.append([name, *(cells.get((model, other, metric), "–") for metric in METRICS)])
        chance = {r.metric: r.chance for r in records(own) if not r.compared_with}
        lines.append(["chance", *(_plain(chance.get(metric, math.nan)) for metric in METRICS)])
    heads = ["model", *METRICS.values()]
    return TableContent(heads, lines, title=f"{title}: internal test", numeric=range(1, len(heads)))


def _places_table(rows: pd.DataFrame, metric: str, places: Sequence[str], title: str) -> TableContent:
    """One figure for every test side by side."""
    macro, lines = _with_tasks(levels(rows, metric, macro=True)), list[list[str]]()
    for protocol, fraction in _fits(macro):
        own = macro[(macro["protocol"] == protocol) & (macro["label_fraction"] == fraction)]
        lines.append([fit_name(protocol, fraction)])
        cells = {(r.model, r.split): narrow_cell(r) for r in records(own)}
        for model in dict.fromkeys(own["model"]):
            lines.append([str(model), *(cells.get((model, place), "–") for place in places)])
        counts = own.drop_duplicates("split").set_index("split")["n_labels"]
        lines.append(["tasks in the mean", *(str(int(counts[p])) if p in counts else "–" for p in places)])
    name = METRICS[metric].replace("\n", " ")
    return TableContent(
        ["model", *places], lines, title=f"{title}: {name} of every test", numeric=range(1, 1 + len(places))
    )


def _draws(rows: pd.DataFrame) -> str:
    n = int(rows["n_repeats"].max())
    return "one fit" if n == 1 else f"mean of {n} draws"


def macro_cell(row: Row, digits: int = 3) -> str:
    """A row's value with its interval below, or why there is none."""
    excluded, compared = row.excluded, row.compared_with
    if excluded == Exclusion.FEW_LABELS:
        return "too few tasks"
    if excluded:
        return excluded.replace("_", " ")
    value, low, high = row.value, row.ci_low, row.ci_high
    return with_interval(value, low, high, form=f"{'+' if compared else ''}.{digits}f", between="\n")


def narrow_cell(row: Row) -> str:
    """As `macro_cell`, for tables with a column per test: the interval without brackets, to two digits."""
    value, low, high = row.value, row.ci_low, row.ci_high
    if row.excluded or not math.isfinite(low):
        return macro_cell(row)
    return f"{value:.3f}\n{low:.2f}–{high:.2f}".replace("-", "−")


def _plain(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "–"


def heat_section(table: SuiteTable) -> Section:
    """Models × tasks on the internal test: how far the run is ahead of each arm."""
    note = (
        f"{PRETRAINED} minus the arm of the column: difference in average precision on the same patients of the "
        f"internal test. Blue: ahead, orange: behind, in full at ±{FULL_SHADE:g}; ● the 95 % interval leaves 0 out "
        "(not corrected for the many tasks)."
    )
    heats = [
        _heat_table(rows[rows["split"] == table.internal(stratum)], stratum.title)
        for stratum, rows in ((stratum, table.of(stratum)) for stratum in table.strata)
    ]
    return Section("Models by task", [note], blocks=[heat for heat in heats if heat.rows])


def _heat_table(rows: pd.DataFrame, title: str) -> TableContent:
    chosen = rows[(rows["compared_with"] != "") & (rows["metric"] == AP) & (rows["label"] != "macro")]
    most = chosen[chosen["protocol"] == "linear_probe"]["label_fraction"].max()
    chosen = chosen[(chosen["protocol"] != "linear_probe") | (chosen["label_fraction"] == most)]
    fits = [(*fit, other) for fit in _fits(chosen) for other in _others(chosen, *fit)]
    found = {(r.label, r.protocol, r.label_fraction, r.compared_with): r for r in records(chosen)}
    defined = chosen[chosen["value"].notna()]
    lines, shades = list[list[str]](), dict[tuple[int, int], float]()
    for label in dict.fromkeys(defined["label"]):
        cells = [task_name(str(label)), str(int(defined[defined["label"] == label]["n_positives"].iloc[0]))]
        for column, fit in enumerate(fits, start=2):
            row = found.get((label, *fit))
            cells.append(_difference(row))
            if row is not None and math.isfinite(row.value):
                shades[len(lines), column] = max(-1.0, min(1.0, float(row.value) / FULL_SHADE))
        lines.append(cells)
    heads = [_head(*fit) for fit in fits]
    numeric = range(1, 2 + len(fits))
    return TableContent(["task", "positives", *heads], lines, title=title, numeric=numeric, shades=shades)


def _others(rows: pd.DataFrame, protocol: str, fraction: float) -> list[str]:
    own = rows[(rows["protocol"] == protocol) & (rows["label_fraction"] == fraction)]
    return list(dict.fromkeys(own["compared_with"]))


def _head(protocol: str, fraction: float, other: str) -> str:
    """In narrow lines, so that all columns fit a page."""
    share = f" {percent(fraction)}" if protocol in FITTED else ""
    return "\n".join(textwrap.wrap(f"{PROTOCOLS.get(protocol, protocol)}{share} − {other}", 11))


def _difference(row: Row | None) -> str:
    if row is None or not math.isfinite(row.value):
        return "–"
    sure = row.ci_low > 0 or row.ci_high < 0
    return f"{row.value:+.2f}".replace("-", "−") + (" ●" if sure else "")


def ceiling_section(table: SuiteTable) -> list[Section]:
    """Echo and rare tasks of a synthetic world: the run, plain baselines and what knowing everything gives."""
    blocks = []
    for stratum in table.strata:
        rows = levels(table.of(stratum), AUROC, macro=False)
        rows = rows[rows["split"] == table.internal(stratum)]
        ceiling = rows[(rows["protocol"] == "oracle") & rows["value"].notna()]
        if ceiling.empty:
            continue
        protocol, fraction = main_fit(rows)
        fitted = rows[(rows["protocol"] == protocol) & (rows["label_fraction"] == fraction)]
        trivial = rows[(rows["model"] == "trivial features") & (rows["label_fraction"] == rows["label_fraction"].max())]
        boosted = rows[rows["protocol"] == "tabular"]
        columns = {
            f"{PRETRAINED},\n{fit_name(protocol, fraction)}": fitted[fitted["model"] == PRETRAINED],
            "trivial features,\nlinear probe": trivial,
            "boosting on\nage, sex, intervals": boosted,
            "oracle ceiling": ceiling,
        }
        by_label = {name: {r.label: macro_cell(r) for r in records(own)} for name, own in columns.items()}
        lines = [
            [task_name(row.label), str(int(row.n_positives)), *(own.get(row.label, "–") for own in by_label.values())]
            for row in records(ceiling)
        ]
        blocks.append(
            TableContent(
                ["task", "positives", *columns], lines, title=stratum.title, numeric=range(1, 2 + len(columns))
            )
        )
    if not blocks:
        return []
    note = (
        "AUROC on the internal test. The ceiling knows every hidden severity of the synthetic patient and nothing of "
        "the tracing's noise; effects on the waveform are partial, so no model can be expected to reach 1."
    )
    return [Section("The ceiling of echo and rare tasks", [note], blocks=blocks)]


def excluded_section(table: SuiteTable) -> Section:
    """Every task that was not scored and why, and tasks that a cohort cannot state, by name."""
    rows = table.rows[table.rows["home"].isin(table.real_sets)]
    blocks = []
    for stratum in table.strata:
        gone = left_out(table.of(stratum))
        grouped = gone.groupby(["label", "why"], sort=True)
        lines = [
            [task_name(str(k)), str(why).replace("_", " "), _places(own), _protocols(own)] for (k, why), own in grouped
        ]
        if lines:
            title = f"Left out of macro means: {stratum.title}"
            blocks.append(TableContent(["task", "why", "tests", "protocols"], lines, title=title))
    blocks += [_unavailable(rows, name) for name in table.real_sets]
    notes = ["A task that is left out has no figure in any mean; none counts as 0."]
    return Section("Not scored, and why", notes, blocks=[b for b in blocks if b.rows])


def _places(rows: pd.DataFrame) -> str:
    return ", ".join(dict.fromkeys(rows["split"]))


def _protocols(rows: pd.DataFrame) -> str:
    fits = sorted({(p, f) for p, f in zip(rows["protocol"], rows["fraction"], strict=True)}, key=lambda fit: fit)
    fractions: dict[str, list[str]] = {}
    for protocol, fraction in fits:
        fractions.setdefault(str(protocol), []).append(percent(float(fraction)))
    return "; ".join(
        f"{p.replace('_', ' ')} ({', '.join(own)})" if p in FITTED else p.replace("_", " ")
        for p, own in fractions.items()
    )


def _unavailable(rows: pd.DataFrame, name: str) -> TableContent:
    own = rows[(rows["home"] == name) & (rows["label"] != "macro") & (rows["label_group"] == "none")]
    lines = []
    for label, tests in own.groupby("label", sort=False)["split"]:
        task = tasks().get(str(label))
        where = task.availability.replace("_", " ") if task else ""
        lines.append([task_name(str(label)), where, ", ".join(dict.fromkeys(tests))])
    return TableContent(["task", "data of it", "tests that cannot state it"], lines, title=f"Unavailable in {name}")


def not_run_section(table: SuiteTable, warnings: Sequence[str]) -> Section:
    """What the suite asks for and no row stands for, and what the evaluation warned of."""
    rows, spec, missing = table.rows, table.spec, list[list[str]]()
    homes, models = set(rows["home"]), set(rows["model"])
    for own in spec.cohorts:
        absent = [t.name for t in own.tests if rows[(rows["home"] == own.name) & (rows["split"] == t.name)].empty]
        if own.name not in homes:
            missing.append([own.name, "the whole set of cohorts is not prepared"])
        elif absent:
            missing.append([", ".join(absent), f"tests of {own.name} that are not prepared"])
    missing += [[own.name, "null world, not prepared"] for own in spec.null_cohorts if own.name not in homes]
    missing += [[arm.name, f"arm of the {arm.role}, not trained"] for arm in spec.arms if arm.name not in models]
    protocols: Mapping[str, set[float]] = {str(p): set(own["label_fraction"]) for p, own in rows.groupby("protocol")}
    for protocol in spec.protocols:
        if protocol not in protocols:
            missing.append([PROTOCOLS[protocol], "no model was scored under this protocol"])
        elif protocol != "zero_shot":
            gone = [f for f in spec.fractions if f not in protocols[protocol]]
            missing += [[fit_name(protocol, f), "not fitted"] for f in gone]
    blocks = [TableContent(["what", "why"], missing or [["nothing: all of it was run", ""]])]
    return Section("Not run", notes=[f"! {w}" for w in warnings], blocks=blocks)
