"""Null worlds in a suite's report: what was predicted, what came out, and every model beside it."""

from __future__ import annotations

from collections.abc import Sequence

from ecgclip_jax.evaluation.suites.nulls import NullFinding, NullVerdict
from ecgclip_jax.reporting.content import Section, TableContent, with_interval
from ecgclip_jax.reporting.suite_rows import AUROC, Row, SuiteTable, levels, percent, records, task_name
from ecgclip_jax.reporting.suite_tables import narrow_cell
from ecgclip_jax.spec.suites import NullWorld


def null_section(table: SuiteTable, verdicts: Sequence[NullVerdict]) -> list[Section]:
    """Worlds in which claims have to fail: verdicts, what they rest on, and all models in worlds of their own."""
    if not verdicts:
        return []
    facts = [(_verdict(v), f"{v.world.name}: {v.world.prediction}. {_rule(v.world)}") for v in verdicts]
    blocks = [_findings(verdicts)]
    for world in (v.world for v in verdicts if v.world.cohorts in table.spec.null_cohorts):
        blocks += _every_model(table, world)
    note = "SYNTHETIC. A comparison that still succeeds here would prove nothing elsewhere."
    return [Section("Null worlds", [note], facts=facts, blocks=blocks)]


def _verdict(v: NullVerdict) -> str:
    if all(f.reason for f in v.findings):
        return "– not run"
    return f"{'✓ as predicted' if v.holds else '✗ not as predicted'} ({v.n_holding} of {len(v.findings)} tests)"


def _rule(world: NullWorld) -> str:
    if world.expected == "vanishes":
        return f"Predicted: the interval of the AUROC lies within {world.margin:g} of 0.5."
    return (
        f"Predicted: inside the interval of the AUROC lies more than {world.margin:g} above 0.5, and at every other "
        f"test more than {world.margin:g} below the internal one."
    )


def _findings(verdicts: Sequence[NullVerdict]) -> TableContent:
    lines: list[list[str]] = []
    for v in verdicts:
        what = "macro AUROC" if v.world.label == "macro" else f"AUROC of {task_name(v.world.label).lower()}"
        how = f"{v.world.model}, {v.world.protocol.replace('_', ' ')}, {v.world.label_source} labels"
        lines.append([f"{v.world.name}: {what}, {how}"])
        lines += [_line(f) for f in v.findings]
    columns = ["test", "AUROC (95 %)", "as predicted", "labels"]
    return TableContent(columns, lines, title="What was predicted and found", numeric=(1, 2, 3))


def _line(f: NullFinding) -> list[str]:
    if f.reason:
        return [f.cohort, f.reason.replace("_", " "), "–", "–"]
    n_labels = "1" if f.n_labels is None else str(f.n_labels)
    return [f.cohort, with_interval(f.value, f.ci_low, f.ci_high), "yes" if f.holds else "no", n_labels]


def _every_model(table: SuiteTable, world: NullWorld) -> list[TableContent]:
    """Macro means per source of labels, and the predicted task where it is one."""
    rows = table.rows[(table.rows["home"] == world.cohorts.name) & (table.rows["label_group"] != "none")]
    places = [test.name for test in world.cohorts.tests if test.name in set(rows["split"])]
    if not places:
        return []
    chosen = {
        f"{source} labels: macro AUROC": levels(rows[rows["label_group"] == source], AUROC, macro=True)
        for source in dict.fromkeys(rows["label_group"])
    }
    if world.label != "macro":
        single = levels(rows[rows["label"] == world.label], AUROC, macro=False)
        chosen[f"AUROC of {task_name(world.label).lower()}"] = single
    tables = []
    for title, own in chosen.items():
        cells = {(*_fit(r), r.split): narrow_cell(r) for r in records(own)}
        lines = [
            [model, f"{protocol.replace('_', ' ')} {percent(fraction)}"]
            + [cells.get((model, protocol, fraction, place), "–") for place in places]
            for model, protocol, fraction in dict.fromkeys(_fit(r) for r in records(own))
        ]
        columns, name = ["model", "protocol", *places], f"{world.cohorts.name}, {title}"
        tables.append(TableContent(columns, lines, title=name, numeric=range(2, 2 + len(places))))
    return tables


def _fit(row: Row) -> tuple[str, str, float]:
    return row.model, row.protocol, row.label_fraction
