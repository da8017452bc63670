"""Two runs on the same test records: paired differences from their stored predictions, with nothing evaluated again.

Records, labels and versions have to be the same; what cannot be paired is left out with its reason. Patients are drawn
and swapped for both runs at once. Holm and Benjamini-Hochberg correct over all macro tests of a figure, and apart from
them over all tests of single tasks (ours).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Int

from ecgclip_jax.evaluation.paired_test import paired_test
from ecgclip_jax.evaluation.predictions import PREFIX, Predictions, load_predictions
from ecgclip_jax.evaluation.results import SMALLEST_CELL, Exclusion
from ecgclip_jax.evaluation.scored import ClassCounts, Scored, TestSplit, class_counts
from ecgclip_jax.evaluation.scoring import METRICS, Estimate, Fit, interval_columns, left_out, macro_estimate, measure
from ecgclip_jax.evaluation.tasks import EvaluationError
from ecgclip_jax.metrics.multiple_testing import benjamini_hochberg, holm
from ecgclip_jax.metrics.ranking import RANKING_METRICS
from ecgclip_jax.spec.whole_file import whole_file

COMPARED: Final = ("auroc", "average_precision", "average_precision_at_prevalence_0.05")
"""The first two are tested; the third may be set side by side across hospitals."""
MACRO = "macro"


@dataclass(frozen=True)
class Difference:
    """First run minus second, of one task or of a macro mean; NaN and None where something does not apply."""

    availability: str
    cohort: str
    split: str
    label_source: str
    protocol: str
    label_fraction: float
    n_repeats: int
    """Draws of the labels that both runs have."""
    label: str
    """A task, or `macro`."""
    metric: str
    first: float = math.nan
    second: float = math.nan
    difference: float = math.nan
    ci_low: float = math.nan
    ci_high: float = math.nan
    p: float = math.nan
    p_holm: float = math.nan
    p_bh: float = math.nan
    n: int | None = None
    n_positives: int | None = None
    n_patients: int | None = None
    n_labels: int | None = None
    excluded: str = ""


@dataclass(frozen=True)
class Comparison:
    """What could be paired, and why the rest could not."""

    rows: tuple[Difference, ...]
    skipped: Mapping[str, str]
    """By test."""

    def save(self, folder: Path) -> Path:
        """Writes `comparison.parquet`."""
        columns = {f.name: [getattr(row, f.name) for row in self.rows] for f in fields(Difference)}
        path = folder / "comparison.parquet"
        with whole_file(path) as part:
            pq.write_table(pa.table(columns), part)
        return path


def compare(
    first: Path,
    second: Path,
    models: tuple[str, str],
    *,
    replicates: int | None = None,
    permutations: int = 2000,
    with_patient_data: bool = False,
) -> Comparison:
    """Compares a model of one evaluation folder with a model of another, test by test.

    Args:
        first: `RUN/evaluation`, or the folder of a suite in it.
        second: of the other run; the same folder to compare two of its models.
        models: the arm of each, as the tables name it.
        replicates: patient draws; as the first evaluation without it.
        permutations: of the paired test.
        with_patient_data: above open access also tell figures of counts below ten.

    Raises:
        EvaluationError: no predictions, or no test that could be paired.
    """
    files = [{p.name: p for p in sorted(folder.glob(f"{PREFIX}*.parquet"))} for folder in (first, second)]
    for folder, own in zip((first, second), files, strict=True):
        if not own:
            raise EvaluationError(f"expected stored predictions in {folder}; run `ecgclip evaluate` first")
    rows, skipped = list[Difference](), dict[str, str]()
    for name in dict.fromkeys([*files[0], *files[1]]):
        test = name.removeprefix(PREFIX).removesuffix(".parquet")
        absent = [str(folder) for folder, own in zip((first, second), files, strict=True) if name not in own]
        if absent:
            skipped[test] = f"no predictions of it in {absent[0]}"
            continue
        a, b = load_predictions(files[0][name]), load_predictions(files[1][name])
        order = matching_rows(a, b)
        if isinstance(order, str):
            skipped[test] = order
            continue
        own_replicates = a.test.replicates if replicates is None else replicates
        split = replace(a.test, replicates=own_replicates)
        pairs = _pairs(a.scored, [replace(s, scores=s.scores[order]) for s in b.scored], models)
        if not pairs:
            skipped[test] = f"no protocol in which both {models[0]!r} and {models[1]!r} were scored on equal labels"
        found = [row for own in pairs for row in _differences(split, *own, permutations)]
        open_data = split.common["access"] == "open" or with_patient_data
        rows += found if open_data else [_suppressed(row) for row in found]
    if not rows:
        told = "; ".join(f"{test}: {why}" for test, why in skipped.items())
        raise EvaluationError(f"no test of the two evaluations could be paired: {told}")
    return Comparison(tuple(_corrected(rows)), skipped)


def matching_rows(a: Predictions, b: Predictions) -> Int[np.ndarray, "records"] | str:
    """Rows of the second in the order of the first, or why they cannot be paired."""
    for fact, what in (("cohort", "cohort"), ("version", "version"), ("availability", "availability of labels")):
        found = [str(own.test.common.get(fact, "")) for own in (a, b)]
        if found[0] != found[1]:
            return f"different {what}: {found[0] or 'none'} and {found[1] or 'none'}"
    if a.test.labels.concepts != b.test.labels.concepts:
        return "different lists of tasks"
    if len(a.test.patient) != len(b.test.patient):
        return f"different records: {len(a.test.patient):,} and {len(b.test.patient):,}"
    order = np.arange(len(b.test.patient))
    if a.record_ids is not None and b.record_ids is not None:
        row_of = {record: row for row, record in enumerate(b.record_ids)}
        if set(row_of) != set(a.record_ids) or len(row_of) != len(a.record_ids):
            return f"different records: {len(set(a.record_ids) - set(row_of)):,} of the first are not in the second"
        order = np.array([row_of[record] for record in a.record_ids])
    elif not np.array_equal(a.test.patient, b.test.patient):
        return (
            "predictions above open access are stored in an order of their own and without record ids, so rows of two "
            "evaluations cannot be paired; evaluate both runs --with-patient-data and compare these local files"
        )
    for part in ("positive", "known"):
        if not np.array_equal(getattr(a.test.labels, part), getattr(b.test.labels, part)[order]):
            return "the same records with different labels: another version of the cohort or of the task rules"
    if a.test.common["data_fingerprint"] != b.test.common["data_fingerprint"]:
        return "different fingerprints of data and labels"
    return order


_Pair = tuple[list[Scored], list[Scored]]


def _pairs(a: Sequence[Scored], b: Sequence[Scored], models: tuple[str, str]) -> list[_Pair]:
    """Per protocol and fraction, the fits of both models with the same numbers; of zero-shot with the same prompts.

    Of several prompt sets only the headline one is compared: the others would be more tests of the same question.
    """
    fits = [
        {(s.protocol, s.fraction, s.wording, s.repeat): s for s in _headline(own) if s.arm.name == m}
        for own, m in ((a, models[0]), (b, models[1]))
    ]
    common = [key for key in fits[0] if key in fits[1]]
    groups: dict[Fit, _Pair] = {}
    for key in sorted(common, key=lambda key: key[3]):
        pair = groups.setdefault(key[:3], ([], []))
        pair[0].append(fits[0][key])
        pair[1].append(fits[1][key])
    return list(groups.values())


def _headline(scored: Sequence[Scored]) -> list[Scored]:
    first = next((s.wording for s in scored if s.wording), None)
    return [s for s in scored if s.wording in (None, first)]


def _differences(
    split: TestSplit, first: list[Scored], second: list[Scored], permutations: int
) -> Iterator[Difference]:
    """Every task, and a macro mean per source of labels."""
    paired = _Paired(split, first, second, permutations)
    sources = [split.label_source(c) for c in split.labels.concepts]
    for metric in COMPARED:
        for source in dict.fromkeys(sources):
            members = [i for i, own in enumerate(sources) if own == source]
            yield paired.macro(metric, source, members)
            for i in members:
                yield paired.task(metric, source, i)


class _Paired:
    """Two models under one protocol on one test, measured under the same draws and permutations."""

    def __init__(self, split: TestSplit, first: list[Scored], second: list[Scored], permutations: int) -> None:
        self.split, self.counts = split, class_counts(split)
        self.excluded = left_out(split, [*first, *second])
        self.measured = [measure(split, own)[0] for own in (first, second)]
        self.tested = paired_test(split, first, second, np.arange(len(split.labels.concepts)), permutations)
        self.base = Difference(
            availability=str(split.common.get("availability", "")),
            cohort=str(split.common["cohort"]),
            split=str(split.common["split"]),
            label_source="",
            protocol=first[0].protocol,
            label_fraction=first[0].fraction,
            n_repeats=len(first),
            label=MACRO,
            metric="",
        )

    def macro(self, metric: str, source: str, members: list[int]) -> Difference:
        """The mean over the tasks of one source of labels that both models have."""
        kept = [i for i in members if self.split.labels.concepts[i] not in self.excluded]
        known = self.split.labels.known[:, members].any(axis=1)
        row = replace(
            self.base,
            metric=metric,
            label_source=source,
            n=int(known.sum()),
            n_patients=len(np.unique(self.split.patient[known])),
            n_labels=len(kept),
        )
        if len(kept) < self.split.macro_min_labels:
            return replace(row, excluded=str(Exclusion.FEW_LABELS))
        estimates = [macro_estimate(m, kept, _index(metric))[0] for m in self.measured]
        return _row(row, estimates, [self.counts[i] for i in kept], self._p(metric, kept))

    def task(self, metric: str, source: str, i: int) -> Difference:
        """One task."""
        concept, counts = self.split.labels.concepts[i], self.counts[i]
        row = replace(
            self.base,
            metric=metric,
            label_source=source,
            label=concept,
            n=counts.n,
            n_positives=counts.n_positives,
            n_patients=counts.n_patients,
        )
        if concept in self.excluded:
            return replace(row, excluded=str(self.excluded[concept]))
        index = _index(metric)
        estimates = [Estimate(m.value[:, i, index], m.draws[:, i, index]) for m in self.measured]
        return _row(row, estimates, [counts], self._p(metric, [i]))

    def _p(self, metric: str, labels: list[int]) -> float:
        if metric not in RANKING_METRICS:
            return math.nan
        return float(self.tested.macro_p(np.array(labels))[RANKING_METRICS.index(metric)])


def _index(metric: str) -> int:
    return [m.name for m in METRICS].index(metric)


def _row(row: Difference, estimates: Sequence[Estimate], counts: Sequence[ClassCounts], p: float) -> Difference:
    values = [float(e.values.mean()) for e in estimates]
    if not np.isfinite(values).all():
        return replace(row, excluded=str(Exclusion.SCORES_NOT_FINITE))
    n_fewer = int(np.median([c.n_fewer for c in counts]))
    nearest = float(np.median([c.nearest for c in counts]))
    columns = interval_columns(METRICS[_index(row.metric)], estimates, n_fewer, nearest)
    return replace(
        row,
        first=values[0],
        second=values[1],
        difference=columns["value"],
        ci_low=columns["ci_low"],
        ci_high=columns["ci_high"],
        p=p,
    )


def _corrected(rows: Sequence[Difference]) -> list[Difference]:
    families: dict[tuple[str, bool], list[int]] = {}
    for i, row in enumerate(rows):
        families.setdefault((row.metric, row.label == MACRO), []).append(i)
    corrected = list(rows)
    for members in families.values():
        p = np.array([rows[i].p for i in members])
        for i, own_holm, own_bh in zip(members, holm(p), benjamini_hochberg(p), strict=True):
            corrected[i] = replace(rows[i], p_holm=float(own_holm), p_bh=float(own_bh))
    return corrected


def _suppressed(row: Difference) -> Difference:
    """Without counts below ten of either class, and what was computed from them."""
    counts = [row.n, row.n_patients, row.n_positives]
    if row.n is not None and row.n_positives is not None:
        counts.append(row.n - row.n_positives)
    if all(c is None or c == 0 or c >= SMALLEST_CELL for c in counts):
        return row
    nothing = dict.fromkeys(("first", "second", "difference", "ci_low", "ci_high", "p"), math.nan)
    told = {
        n: c if c is None or c >= SMALLEST_CELL else None for n, c in (("n", row.n), ("n_patients", row.n_patients))
    }
    return replace(row, **nothing, **told, n_positives=None, excluded=str(Exclusion.SMALL_CELL))  # type: ignore[arg-type]
