"""What a suite's report draws from stored predictions: few labels on one list of tasks, curves with bands, calibration.

Rows of different fractions are means over different tasks, since a percent of the labels defines fewer of them. Here
every point of a curve is a mean over the same tasks, computed again from the predictions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from scipy.special import expit

from ecgclip_jax.evaluation.predictions import PREFIX, Predictions, load_predictions
from ecgclip_jax.evaluation.results import SMALLEST_CELL
from ecgclip_jax.evaluation.scored import Scored, TestSplit, class_counts
from ecgclip_jax.evaluation.scoring import METRICS, interval_columns, left_out, macro_estimate, measure
from ecgclip_jax.metrics.calibration import bin_terms, equal_mass_edges
from ecgclip_jax.metrics.resampling import bootstrap_sums
from ecgclip_jax.reporting.content import FigureContent, Section, drawn
from ecgclip_jax.reporting.curve_bands import CurveBands, curve_bands
from ecgclip_jax.reporting.suite_figures import banded_curves, label_curves, reliability
from ecgclip_jax.reporting.suite_rows import AP, AUROC, SuiteTable, fit_name, task_name
from ecgclip_jax.spec.suites import PRETRAINED, SCRATCH, CohortSet

REPLICATES = 200
"""Patient draws behind a band that is only looked at; every interval of a table has the suite's own number."""
SHOWN = 4
"""Tasks drawn as curves per source of labels: those with most positives."""
StoredTests = Mapping[str, Mapping[str, Predictions]]
"""By set of cohorts and name of the test."""
_BANDS = f"Bands: 95 % of {REPLICATES} patient draws."
_LINES = {
    ("fine_tune", PRETRAINED): "pre-trained, fine-tuned",
    ("fine_tune", SCRATCH): "from random initialisation, fine-tuned",
    ("linear_probe", PRETRAINED): "pre-trained, linear probe",
}


def stored_tests(folder: Path, cohorts: CohortSet) -> dict[str, Predictions]:
    """Predictions of a set's tests as far as they are there, the internal one first."""
    paths = {test.name: folder / f"{PREFIX}{cohorts.name}-{test.name}.parquet" for test in cohorts.tests}
    return {name: load_predictions(path) for name, path in paths.items() if path.is_file()}


def few_labels_section(table: SuiteTable, tests: StoredTests) -> list[Section]:
    """Label-efficiency curves of every stratum."""
    drawings = [
        figure for s in table.strata for figure in _few_labels(tests[s.cohorts], table.internal(s), s.source, s.title)
    ]
    note = f"Within a panel every point is a mean over the same tasks. {_BANDS}"
    return [Section("Few labels", [note], blocks=drawings)] if drawings else []


def curve_sections(table: SuiteTable, tests: StoredTests) -> list[Section]:
    """ROC and precision-recall curves with bands, and calibration, of the internal tests."""
    curves, calibrated = list[FigureContent](), list[FigureContent]()
    for s in table.strata:
        if (own := tests[s.cohorts].get(table.internal(s))) is not None:
            curves += _curves(own, s.source, s.title)
            calibrated += _calibration(own, s.source, s.title)
    calibration_note = (
        "Probabilities of the linear probe with all labels as it was fitted, without temperature, in bins of equally "
        f"many records of the internal test. On the diagonal they are true. {_BANDS} `ecgclip calibrate` refits "
        "thresholds and temperature on local records."
    )
    sections = [
        Section("ROC and precision-recall", [f"Tasks with most positives, internal test. {_BANDS}"], blocks=curves),
        Section("Calibration", [calibration_note], blocks=calibrated),
    ]
    return [section for section in sections if section.blocks]


def _few_labels(tests: Mapping[str, Predictions], internal: str, source: str, title: str) -> list[FigureContent]:
    rows = [row for name, own in tests.items() for row in _points(own, name, name == internal, source)]
    table = pd.DataFrame(rows)
    if table.empty or table["fraction"].nunique() < 2:
        return []
    caption = "macro AP of the internal test, macro AUROC of every test. Dotted: random initialisation, all labels."
    return [drawn(label_curves(table), f"{title}: {caption}")]


def _points(own: Predictions, name: str, internal: bool, source: str) -> list[dict[str, object]]:
    """A row per panel, line and fraction; none where too few tasks are defined at every fraction."""
    chosen = [s for s in own.scored if (s.protocol, s.arm.name) in _LINES]
    test = replace(_narrowed(own.test, source), replicates=min(own.test.replicates, REPLICATES))
    chosen = [_columns(s, own.test, source) for s in chosen]
    gone = left_out(test, chosen)
    kept = [i for i, concept in enumerate(test.labels.concepts) if concept not in gone]
    if len(kept) < test.macro_min_labels:
        return []
    counts = [class_counts(test)[i] for i in kept]
    n_fewer = int(np.median([c.n_fewer for c in counts]))
    nearest = float(np.median([c.nearest for c in counts]))
    shown = (AP, AUROC) if internal else (AUROC,)
    rows: list[dict[str, object]] = []
    for (protocol, arm), line in _LINES.items():
        for fraction in sorted({s.fraction for s in chosen if (s.protocol, s.arm.name) == (protocol, arm)}):
            fits = [s for s in chosen if (s.protocol, s.arm.name, s.fraction) == (protocol, arm, fraction)]
            (measured,) = measure(test, fits)
            for index, metric in ((i, m) for i, m in enumerate(METRICS) if m.name in shown):
                mean, _ = macro_estimate(measured, kept, index)
                panel = f"{name}, {'AP' if metric.name == AP else 'AUROC'} ({len(kept)} tasks)"
                columns = interval_columns(metric, [mean], n_fewer, nearest)
                rows.append({"panel": panel, "line": line, "fraction": fraction, **columns})
    full = max((float(str(r["fraction"])) for r in rows), default=1.0)
    scratch = [r for r in rows if r["line"] == _LINES["fine_tune", SCRATCH] and r["fraction"] == full]
    return [*rows, *(r | {"line": "random initialisation, all labels"} for r in scratch)]


def _narrowed(test: TestSplit, source: str) -> TestSplit:
    """The split with the tasks of one source of labels only."""
    keep = [i for i, concept in enumerate(test.labels.concepts) if test.label_source(concept) == source]
    labels = replace(
        test.labels,
        concepts=tuple(test.labels.concepts[i] for i in keep),
        positive=test.labels.positive[:, keep],
        known=test.labels.known[:, keep],
    )
    return replace(test, labels=labels)


def _columns(s: Scored, test: TestSplit, source: str) -> Scored:
    keep = [i for i, concept in enumerate(test.labels.concepts) if test.label_source(concept) == source]
    return replace(s, scores=s.scores[:, keep])


def _most(own: Predictions, source: str) -> list[int]:
    """Tasks with most positives; above open access none with few of either class."""
    test = own.test
    smallest = 2 if test.common["access"] == "open" else SMALLEST_CELL
    positives = (test.labels.positive & test.labels.known).sum(axis=0)
    negatives = test.labels.known.sum(axis=0) - positives
    fitting = [
        i
        for i, concept in enumerate(test.labels.concepts)
        if test.label_source(concept) == source and min(positives[i], negatives[i]) >= smallest
    ]
    return sorted(fitting, key=lambda i: -int(positives[i]))[:SHOWN]


def _fit(own: Predictions, protocol: str) -> dict[str, Scored]:
    """The first fit with most labels of each arm that is drawn."""
    fits = [s for s in own.scored if s.protocol == protocol and s.arm.name in (PRETRAINED, SCRATCH, "untrained seed 0")]
    best = sorted(fits, key=lambda s: (-s.fraction, s.repeat))
    return {s.arm.name: s for s in reversed(best)}


def _curves(own: Predictions, source: str, title: str) -> list[FigureContent]:
    protocol = next((p for p in ("fine_tune", "linear_probe", "zero_shot") if _fit(own, p)), "")
    fits, test = _fit(own, protocol), own.test
    arms = [name for name in (PRETRAINED, SCRATCH, "untrained seed 0") if name in fits]
    found: dict[str, dict[str, CurveBands]] = {}
    prevalence: dict[str, float] = {}
    for label in _most(own, source):
        rows = test.labels.known[:, label]
        weight = None if test.sampling is None else test.sampling[rows]
        positive, patient = test.labels.positive[rows, label], test.patient[rows]
        scores = {arm: fits[arm].scores[rows, label] for arm in arms}
        name = f"{task_name(test.labels.concepts[label])}\n{int(positive.sum())} positives"
        found[name] = {
            arm: curve_bands(positive, score, patient, test.n_patients, weight, REPLICATES)
            for arm, score in scores.items()
            if np.isfinite(score).all()
        }
        prevalence[name] = float(np.average(positive, weights=weight))
    found = {name: bands for name, bands in found.items() if bands}
    if not found:
        return []
    fraction = max(s.fraction for s in fits.values())
    caption = f"{title}: {fit_name(protocol, fraction)}, one fit. Dotted: chance, and the prevalence."
    return [drawn(banded_curves(found, prevalence), caption)]


def _calibration(own: Predictions, source: str, title: str) -> list[FigureContent]:
    fit = _fit(own, "linear_probe").get(PRETRAINED)
    if fit is None:
        return []
    test, found = own.test, dict[str, pd.DataFrame]()
    for label in _most(own, source):
        rows, score = test.labels.known[:, label], fit.scores[:, label]
        if np.isfinite(score[rows]).all():
            weight = None if test.sampling is None else test.sampling[rows]
            truth, name = test.labels.positive[rows, label], task_name(test.labels.concepts[label])
            found[name] = _bins(truth, score[rows], test.patient[rows], test.n_patients, weight)
    return [drawn(reliability(found), title)] if found else []


def _bins(
    positive: Bool[np.ndarray, "records"],
    score: Float[np.ndarray, "records"],
    patient: Int[np.ndarray, "records"],
    n_patients: int,
    weight: Float[np.ndarray, "records"] | None,
) -> pd.DataFrame:
    """`predicted`, `observed`, `low`, `high` per bin."""
    probability = expit(score.astype(np.float64))
    terms = bin_terms(probability, positive, equal_mass_edges(probability), weight)
    (draws,) = bootstrap_sums([lambda: terms], patient, n_patients, replicates=REPLICATES, seed=0)
    predicted, observed, counts = np.split(terms.sum(axis=1), 3)
    _, drawn_observed, drawn_counts = np.split(draws, 3)
    with np.errstate(invalid="ignore"):
        low, high = np.nanquantile(drawn_observed / drawn_counts, [0.025, 0.975], axis=1)
    return pd.DataFrame({"predicted": predicted / counts, "observed": observed / counts, "low": low, "high": high})
