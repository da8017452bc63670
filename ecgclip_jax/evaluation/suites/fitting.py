"""Every model under every protocol: what is fitted on training labels, chosen on validation, and scores the tests.

Nothing here is given a label of a test split. Each fit is a job of its own with a key of all it depends on; its scores
are kept, so that a suite that was stopped goes on with the next job.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Int
from sklearn.ensemble import HistGradientBoostingClassifier

from ecgclip_jax.evaluation.embedding import Store, array_key
from ecgclip_jax.evaluation.protocols.few_labels import LabelDraw
from ecgclip_jax.evaluation.protocols.finetune import FinetuneError
from ecgclip_jax.evaluation.protocols.gradient_probe import Trajectory, fit_gradient_probe
from ecgclip_jax.evaluation.protocols.knn import NEIGHBOURS, NeighboursError, fit_neighbours
from ecgclip_jax.evaluation.protocols.linear_probe import DEFAULT, ProbeData, ProbeError, fit_probe
from ecgclip_jax.evaluation.results import Exclusion
from ecgclip_jax.evaluation.scored import ALL_LABELS, Arm, Scored
from ecgclip_jax.evaluation.suites.opening import OpenSet, SuiteSplit
from ecgclip_jax.spec.evaluation import GradientProbeSpec, LogisticProbeSpec

Features = Mapping[str, Float[np.ndarray, "_ width"]]
"""By split name: what a probe reads."""
TestScores = dict[str, Float[np.ndarray, "_ labels"]]
VALIDATION = "validation"
"""Name of the validation split's scores among those kept of a fit."""


@dataclass(frozen=True)
class Fitted:
    """Scores of every test split by one fit; labels that training could not define are NaN."""

    scores: TestScores
    note: str = ""
    choice: float = math.nan
    """What validation chose, if it is one number."""
    trajectory: Trajectory | None = None
    """Of a gradient probe whose suite asks for it."""
    validation: Float[np.ndarray, "records labels"] | None = None
    """Scores of the validation split, for thresholds; None where the fit was kept before they were."""

    def scored(self, arm: Arm, protocol: str, draw: LabelDraw, split: SuiteSplit) -> Scored:
        """As the table takes them."""
        scores, names = self.scores[split.name], split.labels.concepts
        unfitted = np.flatnonzero(np.isnan(scores).all(axis=0))
        excluded = dict.fromkeys((names[i] for i in unfitted), Exclusion.ONE_CLASS_IN_TRAINING)
        notes = dict.fromkeys(names, self.note)
        return Scored(arm, protocol, scores, excluded, notes, draw.fraction, draw.repeat)


@dataclass(frozen=True)
class Job:
    """One fit that is still to do or already kept."""

    arm: Arm
    protocol: str
    draw: LabelDraw
    key: tuple[object, ...]
    """What its scores depend on beside labels and draw."""
    fit: Callable[[LabelDraw], Fitted] = field(repr=False)
    features: Features | None = field(default=None, repr=False)
    """Of a probe whose trajectory is kept with its scores: what it reads."""

    @property
    def name(self) -> str:
        """File name of its scores."""
        plain = "".join(c if c.isalnum() else "_" for c in self.arm.name)
        return f"{self.protocol}-{plain}-{self.draw.fraction:g}-{self.draw.repeat}"


def run_job(job: Job, opened: OpenSet, store: Store) -> Fitted:
    """The job's scores, kept or made now."""
    names = [test.name for test in opened.tests]
    learnt = [split.labels_key for split in (opened.train, opened.validation)]
    scored = [split.records_key for split in opened.tests]
    key = array_key(job.arm.fingerprint, job.protocol, job.draw.rows.tobytes().hex(), *learnt, *scored, *job.key)
    files = [f"test{i}" for i in range(len(names))]

    path = () if job.features is None else ("weight", "bias", "fitted")

    def compute() -> dict[str, np.ndarray]:
        made = _fit(job, opened)
        arrays = {f: made.scores[n] for f, n in zip(files, names, strict=True)}
        arrays |= {name: np.array(getattr(made.trajectory, name, [])) for name in path}
        arrays |= {} if made.validation is None else {VALIDATION: made.validation}
        return arrays | {"note": np.array(made.note), "choice": np.array(made.choice)}

    name = f"{opened.name}-{job.name}"
    kept = store.get(name, key, [*files, "note", "choice", *path], compute)
    scores, choice = {n: kept[f] for f, n in zip(files, names, strict=True)}, float(kept["choice"])
    trajectory = None
    if path and len(kept["weight"]):
        trajectory = Trajectory(kept["weight"], kept["bias"], kept["fitted"], int(choice))
    if VALIDATION not in kept:
        kept |= store.read(name, key, (VALIDATION,)) or {}
    return Fitted(scores, str(kept["note"]), choice, trajectory, kept.get(VALIDATION))


def _fit(job: Job, opened: OpenSet) -> Fitted:
    """The fit, or no scores and the reason: one draw without any usable label must not stop a suite."""
    try:
        return job.fit(job.draw)
    except (FinetuneError, NeighboursError, ProbeError) as error:
        shape = {test.name: test.labels.positive.shape for test in opened.tests}
        return Fitted({name: np.full(own, np.nan, np.float32) for name, own in shape.items()}, str(error))


def probe_data(split: SuiteSplit, features: Features, rows: Int[np.ndarray, "chosen"] | None = None) -> ProbeData:
    """Features and labels of a split, or of some of its records."""
    chosen = np.arange(split.n_records) if rows is None else rows
    return ProbeData(features[split.name][chosen], split.labels.positive[chosen], split.labels.known[chosen])


ProbeSettings = LogisticProbeSpec | GradientProbeSpec


def fit_linear(opened: OpenSet, features: Features, settings: ProbeSettings) -> Callable[[LabelDraw], Fitted]:
    """Linear probes on frozen features, solved or trained by gradients."""

    def fit(draw: LabelDraw) -> Fitted:
        train, validation = probe_data(opened.train, features, draw.rows), probe_data(opened.validation, features)
        if isinstance(settings, GradientProbeSpec):
            path = fit_gradient_probe(train, validation, settings, draw.repeat)
            scores = {test.name: path.scores(features[test.name], path.chosen) for test in opened.tests}
            note = f"epoch {path.chosen + 1} of {settings.epochs} chosen on validation for all labels"
            chosen = path.scores(validation.features, path.chosen)
            return Fitted(scores, note, float(path.chosen), path, chosen)
        probe = fit_probe(train, validation, settings)
        scores = {test.name: probe.scores(features[test.name]) for test in opened.tests}
        setting = f", {probe.setting}," if probe.setting else ""
        note = f"C = {probe.inverse_l2:g}{setting} chosen on validation for all labels"
        return Fitted(scores, note, probe.inverse_l2, validation=probe.scores(validation.features))

    return fit


def probe_key(settings: ProbeSettings) -> tuple[object, ...]:
    """What a probe's scores depend on beside data; the default's is as it was before there were others."""
    if settings == DEFAULT:
        return ("linear probe", *DEFAULT.inverse_l2)
    return ("linear probe", settings.canonical_json())


def fit_nearest(opened: OpenSet, features: Features) -> Callable[[LabelDraw], Fitted]:
    """Shares of positives among the nearest training records."""

    def fit(draw: LabelDraw) -> Fitted:
        train, validation = probe_data(opened.train, features, draw.rows), probe_data(opened.validation, features)
        model = fit_neighbours(train, validation)
        scores = {test.name: model.scores(features[test.name]) for test in opened.tests}
        return Fitted(scores, f"k = {model.k} chosen on validation for all labels", float(model.k))

    return fit


def fit_boosting(opened: OpenSet, columns: Features) -> Callable[[LabelDraw], Fitted]:
    """Gradient boosting per label on a table of numbers that any hospital has; NaN is a value of its own.

    Rounds are chosen by scikit-learn's early stopping on a tenth of the training records, which is its own validation.
    """

    def fit(draw: LabelDraw) -> Fitted:
        train = probe_data(opened.train, columns, draw.rows)
        stated = np.isfinite(train.features).any(axis=0)
        scores = {t.name: np.full(t.labels.positive.shape, np.nan, np.float32) for t in opened.tests}
        for label in np.flatnonzero(_enough(train)):
            known = train.known[:, label]
            model = HistGradientBoostingClassifier(
                max_iter=60, max_leaf_nodes=8, max_bins=63, early_stopping=True, random_state=0
            )
            model.fit(train.features[known][:, stated], train.positive[known, label])
            for test in opened.tests:
                scores[test.name][:, label] = model.decision_function(columns[test.name][:, stated])
        return Fitted(scores, "gradient boosting on age, sex, rate, intervals and axis")

    return fit


def _enough(data: ProbeData) -> Bool[np.ndarray, "labels"]:
    """Early stopping holds a tenth of the records back, stratified: it needs ten of either class."""
    positive, negative = data.positive & data.known, ~data.positive & data.known
    enough: np.ndarray = (positive.sum(axis=0) >= 10) & (negative.sum(axis=0) >= 10)
    return enough


def whole(opened: OpenSet) -> LabelDraw:
    """All labels of the training split."""
    return LabelDraw(ALL_LABELS, 0, np.arange(opened.train.n_records))


def probe_jobs(
    arm: Arm, features: Features, opened: OpenSet, draws: Sequence[LabelDraw], settings: ProbeSettings
) -> Iterator[Job]:
    """Linear probes of an arm on every draw."""
    fit, key = fit_linear(opened, features, settings), probe_key(settings)
    every_epoch = features if isinstance(settings, GradientProbeSpec) and settings.best_test_epoch else None
    for draw in draws:
        yield Job(arm, "linear_probe", draw, key, fit, every_epoch)


def neighbour_job(arm: Arm, features: Features, opened: OpenSet) -> Job:
    """Nearest neighbours of an arm among all training records: with few labels they are what the probes are for."""
    key = ("nearest neighbours", *NEIGHBOURS)
    return Job(arm, "nearest_neighbours", whole(opened), key, fit_nearest(opened, features))
