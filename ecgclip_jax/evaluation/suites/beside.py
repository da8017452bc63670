"""What stands beside the 89: age and ejection fraction as numbers, and the time to the cohort's event."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float

from ecgclip_jax.evaluation.index_ecg import DEFAULT_WINDOW, index_ecg
from ecgclip_jax.evaluation.protocols.regression import RegressionData, fit_ridge
from ecgclip_jax.evaluation.protocols.time_to_event import SurvivalData, TimeToEventError, fit_cox
from ecgclip_jax.evaluation.registry import tasks
from ecgclip_jax.evaluation.results import Exclusion, ResultRow
from ecgclip_jax.evaluation.row_columns import NO_ESTIMATE, estimate_columns, row_identity
from ecgclip_jax.evaluation.scored import Arm, TestSplit
from ecgclip_jax.evaluation.suites.arrays import SplitArrays
from ecgclip_jax.evaluation.suites.opening import OpenSet, Part, SuiteSplit
from ecgclip_jax.evaluation.task_labels import task_numbers, task_survival
from ecgclip_jax.evaluation.tasks import EvaluationError
from ecgclip_jax.metrics.intervals import percentile_interval
from ecgclip_jax.metrics.resampling import bootstrap_sums, patient_draws
from ecgclip_jax.metrics.survival import concordance_draws

NUMBERS = ("age", "ejection_fraction")
SURVIVAL = "survival"
SMALLEST = 20
"""Records or events below which nothing is claimed."""
Draws = dict[str, tuple[float, Float[np.ndarray, "draws"]]]
"""By figure: its value and its bootstrap draws."""


def beside_rows(
    opened: OpenSet,
    splits: Sequence[TestSplit],
    arrays: Mapping[str, SplitArrays],
    arms: Sequence[Arm],
    asked: Sequence[str],
    warnings: list[str],
) -> list[ResultRow]:
    """Ridge and Cox regression on every arm's frozen features; why a task has no rows is added to `warnings`."""
    rows: list[ResultRow] = []
    missing: dict[str, str] = {}
    for arm in arms:
        features = {name: own.models[arm.name].features for name, own in arrays.items()}
        for name in (name for name in NUMBERS if name in asked):
            rows += _number_rows(opened, splits, features, arm, name, missing)
        if SURVIVAL in asked:
            rows += _survival_rows(opened, splits, features, arm, missing)
    warnings += [f"{opened.name}, {name}: not evaluated: {why}" for name, why in missing.items()]
    return rows


def _number_rows(
    opened: OpenSet,
    splits: Sequence[TestSplit],
    features: Mapping[str, np.ndarray],
    arm: Arm,
    name: str,
    missing: dict[str, str],
) -> list[ResultRow]:
    def numbers(split: SuiteSplit, *, test: bool) -> Float[np.ndarray, "records"]:
        return _joined(split, lambda part: task_numbers(part.opened, name), name if test else None)

    try:
        train, validation = (
            RegressionData(features[split.name], numbers(split, test=False)[:, None])
            for split in (opened.train, opened.validation)
        )
        targets = {test.name: numbers(test, test=True) for test in opened.tests}
    except EvaluationError as error:
        missing[name] = str(error)
        return []
    model = fit_ridge(train, validation)
    if model.targets[0] is None:
        missing[name] = "training or validation do not state it, or it never varies"
        return []
    rows = []
    for test, split in zip(opened.tests, splits, strict=True):
        target = targets[test.name]
        known = np.isfinite(target)
        figures: Draws = {}
        if known.sum() >= SMALLEST:
            predicted = model.predict(features[test.name][known])[:, 0]
            figures = _number_figures(target[known], predicted, _patients(split, known), _weights(split, known), split)
        note = f"ridge strength {model.targets[0].strength:g} chosen on validation"
        rows += _rows(split, arm, "ridge", name, ("mae", "r_squared", "pearson_r"), figures, known, note)
    return rows


def _number_figures(
    target: Float[np.ndarray, "known"],
    predicted: Float[np.ndarray, "known"],
    patient: np.ndarray,
    weight: Float[np.ndarray, "known"],
    split: TestSplit,
) -> Draws:
    """Mean absolute error, R² and Pearson's r, all functions of weighted sums."""
    centre = target.mean()
    y, p = target - centre, predicted - centre
    terms = weight * np.stack([np.ones_like(y), np.abs(p - y), (p - y) ** 2, y, p, y * y, p * p, y * p])
    n = int(patient.max()) + 1
    (draws,) = bootstrap_sums([lambda: terms], patient, n, replicates=split.replicates, seed=split.seed)
    sums = np.concatenate([terms.sum(axis=1, keepdims=True), draws], axis=1)
    total, absolute, squared, sy, sp, syy, spp, syp = sums
    with np.errstate(invalid="ignore", divide="ignore"):
        spread_y, spread_p = syy - sy * sy / total, spp - sp * sp / total
        found = {
            "mae": absolute / total,
            "r_squared": 1 - squared / spread_y,
            "pearson_r": (syp - sy * sp / total) / np.sqrt(spread_y * spread_p),
        }
    return {name: (float(values[0]), values[1:]) for name, values in found.items()}


def _survival_rows(
    opened: OpenSet,
    splits: Sequence[TestSplit],
    features: Mapping[str, np.ndarray],
    arm: Arm,
    missing: dict[str, str],
) -> list[ResultRow]:
    def follow_up(split: SuiteSplit, *, test: bool) -> SurvivalData:
        asked = SURVIVAL if test else None
        years = _joined(split, lambda part: task_survival(part.opened)[0], asked)
        event = _joined(split, lambda part: task_survival(part.opened)[1], asked)
        return SurvivalData(features[split.name], years, event == 1)

    try:
        model = fit_cox(follow_up(opened.train, test=False), follow_up(opened.validation, test=False))
        tests = [follow_up(test, test=True) for test in opened.tests]
    except (EvaluationError, TimeToEventError) as error:
        missing[SURVIVAL] = str(error)
        return []
    rows = []
    for split, data in zip(splits, tests, strict=True):
        known, figures = np.isfinite(data.time), Draws()
        if (data.event & known).sum() >= SMALLEST:
            risk = model.risk(data.features[known])
            patient = _patients(split, known)
            blocks = patient_draws(int(patient.max()) + 1, split.replicates, split.seed)
            drawn = concordance_draws(
                data.time[known], data.event[known], risk, patient, blocks, _weights(split, known)
            )
            figures["c_index"] = float(drawn[0]), drawn[1:]
        note = f"Cox penalty {model.penalty:g} chosen on validation"
        rows += _rows(split, arm, "cox", SURVIVAL, ("c_index",), figures, known, note)
    return rows


def _joined(
    split: SuiteSplit, values: Callable[[Part], Float[np.ndarray, "records"]], index_of: str | None
) -> Float[np.ndarray, "records"]:
    """A number of all the split's records; in a test NaN where a record is not its patient's index ECG."""
    found = []
    for part in split.parts:
        own = values(part)[part.rows]
        if index_of is not None:
            own = np.where(index_ecg(part.opened, tasks()[index_of].index_ecg, DEFAULT_WINDOW)[part.rows], own, np.nan)
        found.append(own)
    return np.concatenate(found)


def _patients(split: TestSplit, known: Bool[np.ndarray, "records"]) -> np.ndarray:
    _, patient = np.unique(split.patient[known], return_inverse=True)
    return np.asarray(patient)


def _weights(split: TestSplit, known: Bool[np.ndarray, "records"]) -> Float[np.ndarray, "known"]:
    return np.ones(int(known.sum())) if split.sampling is None else split.sampling[known]


def _rows(
    split: TestSplit,
    arm: Arm,
    protocol: str,
    task: str,
    metrics: Sequence[str],
    figures: Draws,
    known: Bool[np.ndarray, "records"],
    note: str,
) -> list[ResultRow]:
    chance = {"r_squared": 0.0, "pearson_r": 0.0, "c_index": 0.5}
    rows = []
    for metric in metrics:
        estimate, reason = dict(NO_ESTIMATE), str(Exclusion.FEW_TEST_RECORDS)
        if metric in figures:
            value, draws = figures[metric]
            estimate, reason = estimate_columns(value, percentile_interval(draws)), ""
        columns = row_identity(split, arm, None, protocol) | {
            "label": task,
            "label_group": "beside",
            "label_source": "independent",
            "metric": metric,
            "chance": chance.get(metric, np.nan),
            "n": int(known.sum()),
            "n_patients": len(np.unique(split.patient[known])),
            "excluded": reason,
            "note": note,
        }
        rows.append(ResultRow(**columns | estimate))
    return rows
