"""A suite's rows as the report's sections want them: by set of cohorts, source of labels and role, never mixed."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final, NamedTuple, get_args

import pandas as pd

from ecgclip_jax.evaluation.registry import LabelSource, tasks, the_89
from ecgclip_jax.spec.suites import PRETRAINED, CohortSet, SuiteSpec

AP, AP_REFERENCE, AUROC = "average_precision", "average_precision_at_prevalence_0.05", "auroc"
METRICS: Final = {
    AUROC: "AUROC",
    AP: "AP",
    AP_REFERENCE: "AP at 5 %\nprevalence",
    "sensitivity_at_specificity_0.9": "sensitivity at\nspecificity 0.9",
    "sensitivity_in_top_0.05": "sensitivity in\ntop 5 %",
}
PROTOCOLS: Final = {
    "zero_shot": "zero-shot",
    "linear_probe": "linear probe",
    "linear_probe_best_test_epoch": "linear probe, epoch CHOSEN ON THE TEST as released",
    "nearest_neighbours": "nearest neighbours",
    "fine_tune": "fine-tuned",
    "tabular": "table of age, sex, rate, intervals, axis",
    "oracle": "all hidden severities known",
}
FITTED: Final = ("linear_probe", "linear_probe_best_test_epoch", "fine_tune")
"""Protocols that learn from a fraction of the labels."""
ORACLE = "oracle ceiling"


class Row(NamedTuple):
    """The columns of a result that the report uses; counts are NaN where they do not apply."""

    model: str
    compared_with: str
    protocol: str
    label_fraction: float
    n_repeats: int
    cohort: str
    split: str
    label: str
    label_group: str
    metric: str
    value: float
    ci_low: float
    ci_high: float
    chance: float
    n: float
    n_positives: float
    n_patients: float
    n_labels: float
    excluded: str
    excluded_labels: str
    synthetic: bool
    availability: str
    subgroup: str
    """Empty: everybody."""
    home: str
    """Set of cohorts that the test belongs to."""
    axis: str
    setting: str


def records(rows: pd.DataFrame) -> list[Row]:
    """Rows of a table, one by one."""
    return [Row(*values) for values in zip(*(rows[name].tolist() for name in Row._fields), strict=True)]


class Stratum(NamedTuple):
    """What may stand in one table: a set of cohorts, one availability, one source of labels."""

    cohorts: str
    availability: str
    source: str

    @property
    def title(self) -> str:
        """For headings."""
        kind = "SYNTHETIC" if self.availability == "synthetic" else self.availability.replace("_", " ")
        return f"{self.cohorts}, {self.source.replace('_', ' ')} labels ({kind})"


@dataclass(frozen=True)
class SuiteTable:
    """All rows of a suite, with the columns of `Row`."""

    spec: SuiteSpec
    rows: pd.DataFrame
    """Those about everybody."""
    subgroups: pd.DataFrame
    wordings: pd.DataFrame = field(default_factory=pd.DataFrame)
    """Zero-shot about everybody, under every set of prompts; `rows` hold the headline set's alone."""
    axes: pd.DataFrame = field(default_factory=pd.DataFrame)
    """Of the run with one thing of the suite changed; in no other table."""

    @cached_property
    def real_sets(self) -> dict[str, CohortSet]:
        """Sets in which claims are tested, by name; no null world."""
        return {own.name: own for own in self.spec.cohorts}

    @cached_property
    def strata(self) -> list[Stratum]:
        """Everything that is shown apart, null worlds not among it."""
        known = self.rows[self.rows["home"].isin(self.real_sets) & self.rows["label_group"].isin(get_args(LabelSource))]
        first = records(known.drop_duplicates(["home", "availability", "label_group"]))
        return [Stratum(row.home, row.availability, row.label_group) for row in first]

    def of(self, stratum: Stratum) -> pd.DataFrame:
        """Its rows, levels and differences."""
        return self.rows[
            (self.rows["home"] == stratum.cohorts)
            & (self.rows["availability"] == stratum.availability)
            & (self.rows["label_group"] == stratum.source)
        ]

    def internal(self, stratum: Stratum) -> str:
        """Name of the internal test of the stratum's set."""
        return self.real_sets[stratum.cohorts].internal.name


def suite_table(folder: Path, spec: SuiteSpec) -> SuiteTable:
    """Reads `results.parquet` of a suite's folder."""
    rows = pd.read_parquet(folder / "results.parquet")
    sets = (*spec.cohorts, *spec.null_cohorts)
    homes = {(test.sources[0].cohort, test.name): own.name for own in sets for test in own.tests}
    rows["home"] = [homes.get(key, "") for key in zip(rows["cohort"], rows["split"], strict=True)]
    rows["subgroup"] = rows.get("subgroup", "")
    axes, rows = rows[rows["axis"] != ""], rows[rows["axis"] == ""]
    everybody, words = rows["subgroup"] == "", rows["prompt_set"]
    headline_words = words.isin(("", spec.prompt_sets[0]))
    return SuiteTable(spec, rows[everybody & headline_words], rows[~everybody], rows[everybody & (words != "")], axes)


def levels(rows: pd.DataFrame, metric: str, *, macro: bool) -> pd.DataFrame:
    """Rows of one figure that are no differences: macro means, or single tasks."""
    chosen = (rows["metric"] == metric) & (rows["compared_with"] == "") & ((rows["label"] == "macro") == macro)
    return rows[chosen]


def headline(rows: pd.DataFrame) -> str:
    """How many of the 89 tasks have a figure, on real data and on synthetic, and how many classes of label sets."""
    scored = rows[(rows["label"] != "macro") & (rows["compared_with"] == "") & rows["value"].notna()]
    scored = scored[(scored["model"] != ORACLE) & scored["label_group"].isin(get_args(LabelSource))]
    ours = scored["label"].isin({task.name for task in the_89()})
    real, synthetic = (scored[ours & (scored["synthetic"] == kind)]["label"].nunique() for kind in (False, True))
    counted = f"{real} of 89 tasks were evaluated on real data, {synthetic} on SYNTHETIC data."
    classes = scored[~ours & ~scored["label"].isin(tasks())].drop_duplicates(["home", "label"])
    if classes.empty:
        return counted
    sets = classes["home"].nunique()
    own = f"{len(classes)} classes of {sets} published label {'set' if sets == 1 else 'sets'} were evaluated."
    return own if real + synthetic == 0 else f"{own} {counted}"


def main_fit(rows: pd.DataFrame) -> tuple[str, float]:
    """Protocol and fraction of labels that single tasks are shown for: fine-tuned on most labels, or the next best."""
    there = rows[(rows["model"] == PRETRAINED) & (rows["compared_with"] == "")]
    for protocol in ("fine_tune", "linear_probe", "zero_shot"):
        own = there[there["protocol"] == protocol]
        if len(own):
            return protocol, float(own["label_fraction"].max())
    return "", 1.0


def fit_name(protocol: str, fraction: float) -> str:
    """`fine-tuned, 10 % of the labels`."""
    name = PROTOCOLS.get(protocol, protocol)
    return f"{name}, {percent(fraction)} of the labels" if protocol in FITTED else name


def percent(share: float) -> str:
    """`10 %`."""
    return f"{100 * share:g} %"


def task_name(key: str) -> str:
    """The name a person reads."""
    return tasks()[key].title if key in tasks() else key


def left_out(rows: pd.DataFrame) -> pd.DataFrame:
    """Every task that a macro mean had to leave out: `label`, `why`, `split`, `protocol`, `label_fraction`."""
    macro = rows[(rows["label"] == "macro") & (rows["compared_with"] == "") & (rows["excluded_labels"] != "")]
    macro = macro.drop_duplicates(["home", "split", "label_group", "protocol", "label_fraction"])
    found = [
        {"label": label, "why": why, "split": row.split, "protocol": row.protocol, "fraction": row.label_fraction}
        for row in records(macro)
        for label, why in json.loads(row.excluded_labels).items()
    ]
    return pd.DataFrame(found, columns=["label", "why", "split", "protocol", "fraction"])
