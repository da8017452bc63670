"""Drawn sections of a suite's report: tasks × tests, the ladder, inside against outside, subgroups, hospitals."""

from __future__ import annotations

import pandas as pd

from ecgclip_jax.reporting.content import FigureContent, Section, TableContent, drawn
from ecgclip_jax.reporting.suite_figures import inside_outside, ladder_steps, task_forest
from ecgclip_jax.reporting.suite_rows import (
    AP,
    AP_REFERENCE,
    AUROC,
    METRICS,
    ORACLE,
    Stratum,
    SuiteTable,
    fit_name,
    levels,
    main_fit,
    records,
    task_name,
)
from ecgclip_jax.reporting.suite_tables import macro_cell, narrow_cell
from ecgclip_jax.spec.suites import PRETRAINED, SCRATCH

TESTS_ABREAST = 10
"""Panels of a forest plot; further tests go into a second one."""


def forest_section(table: SuiteTable) -> Section:
    """AUROC of every task at every test, the run beside random initialisation, and the ceiling where there is one."""
    figures: list[FigureContent] = []
    for stratum in table.strata:
        rows = table.of(stratum)
        protocol, fraction = main_fit(rows)
        beside = SCRATCH if protocol == "fine_tune" else "untrained seed 0"
        own = levels(rows, AUROC, macro=False)
        own = own[own["value"].notna()]
        fitted = own[(own["protocol"] == protocol) & (own["label_fraction"] == fraction)]
        parts = [fitted[fitted["model"] == name] for name in (PRETRAINED, beside)]
        ceiling = own[own["model"] == ORACLE].assign(ci_low=float("nan"), ci_high=float("nan"))
        known = set(zip(parts[0]["label"], parts[0]["split"], strict=True))
        ceiling = ceiling[[key in known for key in zip(ceiling["label"], ceiling["split"], strict=True)]]
        shown = pd.concat([*parts, ceiling])
        shown = shown.assign(place=shown["split"], label=[task_name(str(k)) for k in shown["label"]])
        if shown.empty:
            continue
        places = [p for p in _places(table, stratum) if p in set(shown["place"])]
        what = f"{stratum.title}: AUROC per task, {fit_name(protocol, fraction)}"
        figures += [
            _forest(shown, places[:1] + places[1:][start : start + TESTS_ABREAST - 1], what)
            for start in range(0, max(len(places) - 1, 1), TESTS_ABREAST - 1)
        ]
    return Section("Tasks by test", blocks=figures)


def _forest(shown: pd.DataFrame, places: list[str], what: str) -> FigureContent:
    own = shown[shown["place"].isin(places)]
    ceiling = " Black ticks: the oracle ceiling." if (own["model"] == ORACLE).any() else ""
    return drawn(task_forest(own, places, "AUROC", 0.5), f"{what}; dotted: chance.{ceiling}")


def _places(table: SuiteTable, stratum: Stratum) -> list[str]:
    """Tests in the order of the specification, the internal one first."""
    return [test.name for test in table.real_sets[stratum.cohorts].tests]


def ladder_sections(table: SuiteTable) -> list[Section]:
    """The attribution ladder on the internal test: one change per rung, the run itself last."""
    rungs = [arm for arm in table.spec.arms if arm.role == "ladder"]
    blocks: list[FigureContent | TableContent] = []
    for stratum in table.strata if rungs else []:
        rows = table.of(stratum)
        rows = rows[(rows["split"] == table.internal(stratum)) & (rows["label"] == "macro")]
        for protocol in ("fine_tune", "linear_probe"):
            for fraction in table.spec.ladder_fractions:
                own = rows[(rows["protocol"] == protocol) & (rows["label_fraction"] == fraction)]
                if set(own["model"]) & {arm.name for arm in rungs}:
                    blocks += _ladder(table, own, f"{stratum.title}: {fit_name(protocol, fraction)}")
    if not blocks:
        return []
    note = (
        "Each rung changes one thing of the rung before. Every arm has the same data, steps, optimiser, search on "
        "validation and patients. R18 is ResNet-18; the run itself is the last rung."
    )
    return [Section("The attribution ladder", [note], blocks=blocks)]


def _ladder(table: SuiteTable, rows: pd.DataFrame, title: str) -> list[FigureContent | TableContent]:
    there = set(rows["model"])
    rungs = [arm for arm in table.spec.arms if arm.role == "ladder" and arm.name in there]
    changed = {arm.name: arm.changed for arm in rungs} | {PRETRAINED: "the run itself"}
    names = [*changed, *([SCRATCH] if (rows["model"] == SCRATCH).any() else [])]
    level = rows[rows["compared_with"] == ""]
    drawn_rows = [
        {"rung": r.model, "metric": METRICS[r.metric], "value": r.value, "ci_low": r.ci_low, "ci_high": r.ci_high}
        for metric in (AP, AUROC)
        for r in records(level[level["metric"] == metric])
    ]
    steps = pd.DataFrame(drawn_rows)
    steps = steps[steps["rung"].isin(changed)].sort_values(
        "rung", key=lambda s: s.map(list(changed).index), kind="stable"
    )
    cells = {(r.model, r.compared_with, r.metric): macro_cell(r) for r in records(rows)}
    lines = [
        [
            name,
            changed.get(name, ""),
            *(cells.get((name, "", m), "–") for m in (AP, AUROC)),
            *(cells.get((PRETRAINED, name, m), "–") for m in (AP, AUROC)),
        ]
        for name in names
    ]
    columns = ["rung", "changed", "macro AP", "macro AUROC", "run − rung, AP", "run − rung, AUROC"]
    figure = drawn(ladder_steps(steps), f"{title}; internal test, 95 % intervals.")
    return [figure, TableContent(columns, lines, title=title, numeric=(2, 3, 4, 5))]


def outside_sections(table: SuiteTable) -> list[Section]:
    """Each task's figure at external tests against the internal one: AUROC and AP at one prevalence, never raw AP."""
    blocks = []
    for stratum in table.strata:
        rows = table.of(stratum)
        protocol, fraction = main_fit(rows)
        own = rows[
            (rows["protocol"] == protocol) & (rows["label_fraction"] == fraction) & (rows["model"] == PRETRAINED)
        ]
        pairs = []
        for metric in (AUROC, AP_REFERENCE):
            values = levels(own, metric, macro=False).pivot_table(index="label", columns="split", values="value")
            inside = table.internal(stratum)
            if inside not in values:
                continue
            pairs += [
                {"metric": METRICS[metric], "place": place, "inside": row[inside], "outside": row[place]}
                for place in _places(table, stratum)[1:]
                if place in values
                for _, row in values[[inside, place]].dropna().iterrows()
            ]
        if pairs:
            caption = f"{stratum.title}: {fit_name(protocol, fraction)}, one mark per task and external test."
            blocks.append(drawn(inside_outside(pd.DataFrame(pairs)), caption))
    return [Section("External against internal", blocks=blocks)] if blocks else []


def subgroup_section(table: SuiteTable) -> list[Section]:
    """The run's probe by age band, sex and device: a mean over everybody hides whom a model serves badly."""
    blocks = []
    for stratum in table.strata:
        rows = table.subgroups
        own = rows[(rows["home"] == stratum.cohorts) & (rows["label_group"] == stratum.source)]
        own = levels(own[own["availability"] == stratum.availability], AUROC, macro=True)
        places = [p for p in _places(table, stratum) if p in set(own["split"])]
        cells = {(r.subgroup, r.split): narrow_cell(r) for r in records(own)}
        lines = [[name, *(cells.get((name, p), "–") for p in places)] for name in sorted(set(own["subgroup"]))]
        if lines:
            title = f"{stratum.title}: macro AUROC, {PRETRAINED}, linear probe with all labels"
            blocks.append(TableContent(["subgroup", *places], lines, title=title, numeric=range(1, 1 + len(places))))
    note = "A subgroup's mean is over the tasks that it has enough positives for; compare within a line with care."
    return [Section("Subgroups", [note], blocks=blocks)] if blocks else []


def hospital_section(table: SuiteTable) -> list[Section]:
    """Whether frozen features tell the hospital a tracing is from."""
    own = table.rows[(table.rows["protocol"] == "hospital_probe") & (table.rows["label"] != "macro")]
    rows = records(levels(own, AUROC, macro=False))
    blocks = []
    for cohort in dict.fromkeys(r.cohort for r in rows):
        places = list(dict.fromkeys(r.label for r in rows if r.cohort == cohort))
        cells = {(r.model, r.label): narrow_cell(r) for r in rows if r.cohort == cohort}
        lines = [
            [model, *(cells.get((model, place), "–") for place in places)]
            for model in dict.fromkeys(model for model, _ in cells)
        ]
        blocks.append(TableContent(["model", *places], lines, title=cohort, numeric=range(1, 1 + len(places))))
    note = (
        "AUROC of a linear probe that is asked which test a tracing is from; features that tell the hospital invite "
        "shortcuts; 0.5 would be none."
    )
    return [Section("Can the hospital be told?", [note], blocks=blocks)] if blocks else []
