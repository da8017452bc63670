"""Thresholds and temperature of a run's probe, refitted on a hospital's own records, and whether there are enough.

How many records that needs (our rule): so many patients with a finding that half the width of the 95 % interval of the
sensitivity at the threshold (Wilson) is at most `half_width`, and so many without it for the specificity. Patients are
counted, not ECGs, because ECGs of one patient say little new.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int
from scipy.stats import norm

from ecgclip_jax.data.labels import Labels, label_matrix, record_concepts
from ecgclip_jax.data.sources import CohortSplit, open_cohort, strictest_access
from ecgclip_jax.evaluation.embedding import Model, Store, embed_split
from ecgclip_jax.evaluation.operating import OperatingPoints, fit_operating_points, save_operating_points
from ecgclip_jax.evaluation.results import SMALLEST_CELL, Exclusion, without_nan
from ecgclip_jax.evaluation.scored import Arm, Scored
from ecgclip_jax.evaluation.selection import Overlapping, choose_rows
from ecgclip_jax.evaluation.stored_probe import load_probe
from ecgclip_jax.evaluation.tasks import EvaluationError, concepts_of, patient_index
from ecgclip_jax.metrics.thresholds import Rule
from ecgclip_jax.spec.experiment import Source

PRETRAINED: Final = "pre-trained"
_MOST = 1_000_000


@dataclass(frozen=True)
class LocalTask:
    """One task on the local records; figures are NaN and counts None where they cannot or may not be told."""

    concept: str
    n_ecgs: int | None
    """With a known label."""
    n_positives: int | None
    n_patients_positive: int | None
    threshold: float = math.nan
    """On logits before the temperature."""
    sensitivity: float = math.nan
    specificity: float = math.nan
    needed_positives: int | None = None
    """Patients with the finding that the rule asks for."""
    needed_ecgs: int | None = None
    """Patients in all, each with one ECG, at the prevalence found here."""
    enough: bool = False
    reason: str = ""
    """Why there is no threshold."""


@dataclass(frozen=True)
class Recalibrated:
    """What was fitted on which records."""

    points: OperatingPoints
    tasks: tuple[LocalTask, ...]
    n_ecgs: int
    n_patients: int
    path: Path
    warnings: tuple[str, ...]


def wilson_half_width(share: float, n: int) -> float:
    """Half the width of Wilson's 95 % interval of a share seen in n trials (J Am Stat Assoc 1927;22:209)."""
    z = float(norm.ppf(0.975))
    return z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))


def needed(share: float, half_width: float) -> int:
    """Fewest trials for which Wilson's interval of the share is at most `half_width` to either side."""
    low, high = 1, _MOST
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if wilson_half_width(share, middle) <= half_width else (middle + 1, high)
    return low


def recalibrate(
    model: Model,
    run: Path,
    data_dir: Path,
    source: Source,
    *,
    rule: Rule = "youden",
    target: float = 0.9,
    half_width: float = 0.1,
    on_overlap: Overlapping = "refuse",
    with_patient_data: bool = False,
) -> Recalibrated:
    """Fits on a local split and writes `operating_points-<cohort>.json` beside the run's own; never over a file.

    Args:
        model: of the run, at the evaluated step.
        run: run folder, evaluated.
        data_dir: folder of prepared cohorts.
        source: the local cohort's split; its labels are read in its own vocabulary.
        rule: of the thresholds.
        target: sensitivity or specificity that the rule asks for.
        half_width: of the interval that decides how many records are enough.
        on_overlap: what to do if a record or patient was seen in pre-training.
        with_patient_data: above open access also tell counts below ten and what comes from them.

    Raises:
        EvaluationError: no stored probe, the file is there already, no common task, or overlap that is refused.
        CohortError: a cohort that is not prepared.
        LabelError: no labels in a known vocabulary.
    """
    folder = run / "evaluation"
    probe = load_probe(folder, model.fingerprint)
    path = folder / f"operating_points-{source.cohort}.json"
    if path.exists():
        raise EvaluationError(f"{path} is there already and is never overwritten; move it away first")
    opened, warnings = open_cohort(data_dir, source), list[str]()
    exposure = run / "exposure.parquet"
    if not exposure.is_file():
        warnings.append("no exposure table: overlap of these records with pre-training was not checked")
    rows = choose_rows(opened, exposure if exposure.is_file() else None, on_overlap, warnings)
    table = opened.table.take(pa.array(rows))
    labels = _labels(opened, table, probe.concepts)
    arrays, _ = embed_split(opened, rows, {PRETRAINED: model}, Store(None), lambda _: None)
    scores = probe.scores(arrays[PRETRAINED].features)
    scored = Scored(Arm(PRETRAINED, model.fingerprint), "linear_probe", scores)
    points = fit_operating_points([(labels, [scored])], rule, target)[PRETRAINED]
    patient, _ = patient_index(table)
    small = 0 if strictest_access([model.access, opened.access]) == "open" or with_patient_data else SMALLEST_CELL  # type: ignore[list-item]
    tasks = tuple(
        _task(labels, i, scores[:, i], points, patient, half_width, small) for i in range(len(probe.concepts))
    )
    told = OperatingPoints(points.temperature, {t.concept: t.threshold for t in tasks if math.isfinite(t.threshold)})
    facts = {
        "rule": rule,
        "target": target if rule in ("sensitivity", "specificity") else None,
        "half_width": half_width,
        "fitted_on": f"{opened.cohort} {opened.version}/{opened.split}",
        "data_fingerprint": opened.fingerprint,
        "model_fingerprint": model.fingerprint,
        "tasks": [without_nan(asdict(task)) for task in tasks],
    }
    save_operating_points({PRETRAINED: told}, folder, path.name, facts)
    return Recalibrated(told, tasks, len(rows), int(patient.max()) + 1, path, tuple(warnings))


def _labels(opened: CohortSplit, table: pa.Table, concepts: tuple[str, ...]) -> Labels:
    """The probe's tasks as the local vocabulary states them; what it cannot state is known of nobody."""
    vocabularies, codes = (table.column(name).to_pylist() for name in ("label_vocabulary", "label_codes"))
    vocabulary = next((v for v in vocabularies if v), "")
    stated = concepts_of(vocabulary)
    if not set(stated) & set(concepts):
        raise EvaluationError(
            f"{opened.name}: its vocabulary {vocabulary!r} states none of the tasks of the stored probe"
        )
    labels = label_matrix(record_concepts(vocabularies, codes, vocabulary, "the cohort's label vocabulary"), concepts)
    return Labels(labels.concepts, labels.positive, labels.known & np.isin(concepts, stated))


def _task(
    labels: Labels,
    i: int,
    score: Float[np.ndarray, "records"],
    points: OperatingPoints,
    patient: Int[np.ndarray, "records"],
    half_width: float,
    small: int,
) -> LocalTask:
    """Counts, the threshold and what it does here, and how many patients the rule asks for."""
    known, concept = labels.known[:, i], labels.concepts[i]
    positive = labels.positive[:, i] & known
    negative = known & ~positive
    n_sick, n_well = len(np.unique(patient[positive])), len(np.unique(patient[negative]))
    counts = [int(known.sum()), int(positive.sum()), int(negative.sum()), n_sick, n_well]
    if any(0 < count < small for count in counts):
        return LocalTask(concept, None, None, None, reason=str(Exclusion.SMALL_CELL))
    task = LocalTask(concept, counts[0], counts[1], n_sick)
    if not np.isfinite(score[known]).all():
        return replace(task, reason="the probe could not be fitted to it")
    if concept not in points.thresholds:
        return replace(task, reason="not stated here" if not counts[0] else "only one class here")
    threshold = points.thresholds[concept]
    sensitivity, specificity = (
        float(np.mean(hit)) for hit in (score[positive] >= threshold, score[negative] < threshold)
    )
    sick, well = needed(sensitivity, half_width), needed(specificity, half_width)
    n_patients = len(np.unique(patient[known]))
    return replace(
        task,
        threshold=threshold,
        sensitivity=sensitivity,
        specificity=specificity,
        needed_positives=sick,
        needed_ecgs=max(math.ceil(sick * n_patients / n_sick), math.ceil(well * n_patients / n_well)),
        enough=n_sick >= sick and n_well >= well,
    )
