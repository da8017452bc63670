"""Full fine-tuning: the whole ECG encoder learns all labels at once through one masked linear layer.

It starts from any weights, pre-trained or random; the model that is given decides the arm, and everything else is the
same. `finetune` takes training and validation data only: test data have no way in. Loss: the mean over labels of their
weighted binary cross-entropy over known records. In a batch each label is divided by its known weight in the whole
training set, not in the batch, so that the batch's loss is an unbiased estimate however rarely a label is known.

Few updates do not teach a fresh head what a linear probe finds at once, so by default the head begins as that probe
(Kumar et al., ICLR 2022), on features whose BatchNorm statistics have settled on the training ECGs. All of it is the
same for trained and for random weights, and the probe itself is the first of the checks among which validation chooses.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from ecgclip_jax.contracts import EcgInput
from ecgclip_jax.evaluation.protocols.linear_probe import ProbeData, fit_probe
from ecgclip_jax.evaluation.protocols.tuning_data import Tunable, TuningData, ecg_rows, filled
from ecgclip_jax.evaluation.protocols.tuning_program import Rates, TuningProgram, TuningState, tuning_program
from ecgclip_jax.metrics.ranking import average_precision
from ecgclip_jax.models.functional import Tree
from ecgclip_jax.spec.errors import UserError
from ecgclip_jax.spec.evaluation import FinetuneSpec

Advance = Callable[[int], None]
"""Told how many updates more are done; in all `len(learning_rates) * settings.steps(records)`."""


SETTLING_BATCHES = 30
"""After which 4 % of the statistics before are left, with the usual momentum of 0.1."""


class FinetuneError(UserError):
    """Training or validation labels that cannot be learned or chosen on, or an encoder that is not finite."""


@dataclass(frozen=True)
class Check:
    """One look at the validation set."""

    step: int
    """Updates made so far."""
    train_loss: float
    """Mean over the updates since the last check; NaN before the first."""
    validation_loss: float
    macro_average_precision: float
    """Mean over the labels of `Finetuned.chosen_by`; NaN if there are none."""


@dataclass(frozen=True)
class Trial:
    """One training at one learning rate."""

    learning_rate: float
    checks: tuple[Check, ...]
    best: int | None
    """Which check is the best; None if no check was finite."""
    ended: Literal["complete", "patience", "diverged"]


@dataclass(frozen=True, eq=False)
class Finetuned:
    """The best check of the best trial by validation; labels that training could not define score NaN."""

    fitted: Bool[np.ndarray, "labels"]
    """Labels with both classes in training."""
    chosen_by: Bool[np.ndarray, "labels"]
    """Labels with both classes in validation too: they chose learning rate and check for all."""
    trials: tuple[Trial, ...]
    chosen: int
    """Which trial."""
    epochs: float
    """Passes over the training ECGs up to the chosen check."""
    params: Tree
    stats: Tree
    program: TuningProgram
    batch: int

    @property
    def learning_rate(self) -> float:
        """The chosen one."""
        return self.trials[self.chosen].learning_rate

    @property
    def check(self) -> Check:
        """The chosen one."""
        trial = self.trials[self.chosen]
        assert trial.best is not None
        return trial.checks[trial.best]

    def scores(self, ecg: EcgInput) -> Float[np.ndarray, "records labels"]:
        """Logits, float32, of ECGs from `tuning_inputs`; NaN for labels that could not be fitted."""
        params, stats = self.program.place((self.params, self.stats))
        logits = _logits(self.program, params, stats, ecg, np.arange(len(ecg.signal)), self.batch)
        return np.where(self.fitted, logits, np.float32(np.nan))


def finetune(
    model: Tunable,
    train: TuningData,
    validation: TuningData,
    settings: FinetuneSpec,
    seed: int,
    advance: Advance | None = None,
) -> Finetuned:
    """Fine-tune from the model's weights at every learning rate; keep the best check of all by validation.

    Args:
        model: where to start: `inference.load_model(…)` or `inference.untrained(model, seed)`.
        train: what is learned from; its inputs must be made for this model's input specification.
        validation: what chooses learning rate and check.
        settings: the same for every arm.
        seed: of the order of the training ECGs (and of a `uniform` head); with the same seed the result is the same
            to the last bit on the same devices.
        advance: progress.

    Raises:
        FinetuneError: no label has both classes in training or, among those, in validation; or the encoder is not
            finite. (A training that diverges ends, and what was best before stays a candidate.)
    """
    fitted = train.both_classes
    chosen_by = fitted & validation.both_classes
    _require(fitted, "training", "nothing can be learned")
    _require(chosen_by, "validation", "neither a learning rate nor a check can be chosen")
    program = tuning_program(model.experiment, settings.batch)
    start = _start(model, program, train, validation, settings, seed)
    trials: list[Trial] = []
    best: tuple[float, int, Tree, Tree] | None = None
    for number, rate in enumerate(settings.learning_rates):
        run = _Run(program, settings, train, validation, fitted, chosen_by, rate, seed)
        trial, kept = run.go(program.start(*start), advance or (lambda _: None))
        trials.append(trial)
        if kept is not None and (best is None or kept[0] > best[0]):
            best = kept[0], number, kept[1], kept[2]
    if best is None:
        raise FinetuneError("fine-tuning: the encoder's logits are not finite; give a model whose training was finite")
    _, chosen, params, stats = best
    trial = trials[chosen]
    assert trial.best is not None
    epochs = trial.checks[trial.best].step * settings.batch / len(train)
    return Finetuned(fitted, chosen_by, tuple(trials), chosen, epochs, params, stats, program, settings.batch)


def _require(labels: Bool[np.ndarray, "labels"], split: str, consequence: str) -> None:
    if not labels.any():
        raise FinetuneError(
            f"fine-tuning: expected labels with positives and negatives in {split}, found none of {len(labels)}, so "
            f"{consequence}; give more records, or other labels"
        )


def _start(
    model: Tunable,
    program: TuningProgram,
    train: TuningData,
    validation: TuningData,
    settings: FinetuneSpec,
    seed: int,
) -> tuple[Tree, Tree, Tree]:
    """Trunk, its running statistics and the head before the first update."""
    trunk, stats = program.trunk(model.params["ecg"]), dict(model.batch_stats["ecg"])
    if settings.head_start == "log_odds":
        return trunk, stats, _log_odds_head(program.width, train)
    if settings.head_start == "uniform":
        return trunk, stats, _uniform_head(program.width, train.positive.shape[1], seed)
    placed, settled = program.place((trunk, stats))
    for rows in islice(batches(len(train), settings.batch, seed), SETTLING_BATCHES):
        settled = program.settle(placed, settled, ecg_rows(train.ecg, train.rows[rows]))
    return trunk, jax.device_get(settled), _probe_head(program, placed, settled, train, validation, settings.batch)


def _probe_head(
    program: TuningProgram, trunk: Tree, stats: Tree, train: TuningData, validation: TuningData, batch: int
) -> Tree:
    """The linear probe as a layer on the features themselves; labels that are not fitted get zeros."""

    def probe_data(data: TuningData) -> ProbeData:
        seen = _features(program, trunk, stats, data.ecg, data.rows, batch)
        if not np.isfinite(seen).all():
            raise FinetuneError(
                "fine-tuning: the encoder's features are not finite; give a model whose training was finite"
            )
        return ProbeData(seen, data.positive, data.known)

    probe = fit_probe(probe_data(train), probe_data(validation))
    kernel = np.where(probe.fitted, probe.rotation.axes @ probe.weight, 0.0)
    bias = np.where(probe.fitted, probe.bias - probe.rotation.mean @ kernel, 0.0)
    return {"kernel": kernel.astype(np.float32), "bias": bias.astype(np.float32)}


def _log_odds_head(width: int, train: TuningData) -> Tree:
    """No weights, and the (weighted) log-odds of the training labels; zeros for labels that are not fitted."""
    weights, fitted = train.weights, train.both_classes
    positives, negatives = (weights * train.positive).sum(axis=0), (weights * ~train.positive).sum(axis=0)
    odds = np.divide(positives, negatives, out=np.ones(len(fitted)), where=fitted)
    return {"kernel": np.zeros((width, len(fitted)), np.float32), "bias": np.log(odds).astype(np.float32)}


def _uniform_head(width: int, labels: int, seed: int) -> Tree:
    """PyTorch's default initialisation of a linear layer."""
    rng, bound = np.random.default_rng([seed, 1]), 1 / math.sqrt(width)
    return {
        "kernel": rng.uniform(-bound, bound, (width, labels)).astype(np.float32),
        "bias": rng.uniform(-bound, bound, labels).astype(np.float32),
    }


@dataclass(frozen=True, eq=False)
class _Run:
    """One training at one learning rate."""

    program: TuningProgram
    settings: FinetuneSpec
    train: TuningData
    validation: TuningData
    fitted: Bool[np.ndarray, "labels"]
    chosen_by: Bool[np.ndarray, "labels"]
    rate: float
    seed: int

    def go(self, state: TuningState, advance: Advance) -> tuple[Trial, tuple[float, Tree, Tree] | None]:
        """The trial, and merit, parameters and statistics of its best check (merit: higher is better)."""
        steps = self.settings.steps(len(self.train))
        share = _share(self.train, self.fitted)
        positive = (self.train.positive & self.train.known).astype(np.float32)
        due = check_steps(steps, self.settings.checks)
        best = _Best(self.settings)
        best.look(self._check(0, state, []), state)
        losses: list[jax.Array] = []
        done = 0
        for number, rows in zip(range(steps), batches(len(self.train), self.settings.batch, self.seed), strict=False):
            ecg = ecg_rows(self.train.ecg, self.train.rows[rows])
            state, loss = self.program.step(state, ecg, positive[rows], share[rows], self._rates(number, steps))
            losses.append(loss)
            if number + 1 not in due:
                continue
            best.look(self._check(number + 1, state, losses), state)
            advance(number + 1 - done)
            done, losses = number + 1, []
            if best.ended != "complete":
                break
        advance(steps - done)
        return Trial(self.rate, tuple(best.checks), best.at, best.ended), best.kept

    def _rates(self, step: int, steps: int) -> Rates:
        rate = np.float32(self.rate * schedule(self.settings, step, steps, len(self.train)))
        head = np.float32(rate * self.settings.head_rate_factor)
        return Rates(jnp.asarray(rate), jnp.asarray(head), jnp.float32(self.settings.weight_decay))

    def _check(self, step: int, state: TuningState, losses: list[jax.Array]) -> Check:
        data = self.validation
        logits = _logits(self.program, state.params, state.stats, data.ecg, data.rows, self.settings.batch)
        loss, precision = _validation(logits, data, self.chosen_by)
        return Check(step, float(np.mean(jax.device_get(losses))) if losses else math.nan, loss, precision)


@dataclass
class _Best:
    """The best check so far, and whether it is time to stop."""

    settings: FinetuneSpec
    checks: list[Check] = field(default_factory=list)
    at: int | None = None
    kept: tuple[float, Tree, Tree] | None = None
    """Merit (higher is better), parameters and statistics, on the host."""
    ended: Literal["complete", "patience", "diverged"] = "complete"

    def look(self, check: Check, state: TuningState) -> None:
        """Takes note of a check, and of the weights if it is the best."""
        self.checks.append(check)
        if not math.isfinite(check.validation_loss):
            self.ended = "diverged"
            return
        by_precision = self.settings.selection == "macro_average_precision"
        merit = check.macro_average_precision if by_precision else -check.validation_loss
        if self.kept is None or merit > self.kept[0]:
            self.at, self.kept = len(self.checks) - 1, (merit, *jax.device_get((state.params, state.stats)))
        elif self.at is not None and len(self.checks) - 1 - self.at >= self.settings.patience:
            self.ended = "patience"


def schedule(settings: FinetuneSpec, step: int, steps: int, records: int) -> float:
    """Share of the peak rate at update `step` (from 0) of `steps`: a linear climb, then the schedule."""
    warmup = int(settings.warmup_share * steps)
    if step < warmup:
        return (step + 1) / warmup
    if settings.schedule == "halving":
        return float(0.5 ** (step * settings.batch // records // settings.halve_every_epochs))
    return (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) / 2


def check_steps(steps: int, checks: int) -> frozenset[int]:
    """Numbers of updates after which validation is scored; the last is among them."""
    return frozenset(math.ceil(steps * (k + 1) / checks) for k in range(checks))


def batches(records: int, batch: int, seed: int) -> Iterator[Int[np.ndarray, "batch"]]:
    """Full batches for ever: passes over all records, each in its own order, one after the other.

    A batch may end one pass and begin the next, so nothing is padded and BatchNorm sees ECGs only.
    """
    rng = np.random.default_rng([seed, 0])
    queue = rng.permutation(records)
    while True:
        while len(queue) < batch:
            queue = np.concatenate([queue, rng.permutation(records)])
        yield queue[:batch]
        queue = queue[batch:]


def _share(train: TuningData, fitted: Bool[np.ndarray, "labels"]) -> Float[np.ndarray, "records labels"]:
    """Weight of each loss term such that its mean over records and labels is the mean over fitted labels of theirs."""
    weights = train.weights * fitted
    total = weights.sum(axis=0) * fitted.mean()
    each: np.ndarray = np.divide(weights * len(train), total, out=np.zeros_like(weights), where=fitted)
    return each.astype(np.float32)


def _logits(
    program: TuningProgram, params: Tree, stats: Tree, ecg: EcgInput, rows: Int[np.ndarray, "records"], batch: int
) -> Float[np.ndarray, "records labels"]:
    """The head on the features, on the host: it is a small product."""
    kernel, bias = jax.device_get((params["head"]["kernel"], params["head"]["bias"]))
    seen = _features(program, params["ecg"], stats, ecg, rows, batch)
    with np.errstate(over="ignore", invalid="ignore"):  # of a training that diverged, which is told by its logits
        logits: np.ndarray = seen @ kernel + bias
    return logits


def _features(
    program: TuningProgram, trunk: Tree, stats: Tree, ecg: EcgInput, rows: Int[np.ndarray, "records"], batch: int
) -> Float[np.ndarray, "records width"]:
    """Features of some ECGs, `batch` at a time."""
    done = [np.zeros((0, program.width), np.float32)]
    for start in range(0, len(rows), batch):
        part = ecg_rows(ecg, rows[start : start + batch])
        whole = cast(EcgInput, jax.tree.map(lambda values: filled(values, batch), part))
        done.append(np.asarray(program.features(trunk, stats, whole))[: len(rows) - start])
    features: np.ndarray = np.concatenate(done)
    return features


def _validation(
    logits: Float[np.ndarray, "records labels"], data: TuningData, labels: Bool[np.ndarray, "labels"]
) -> tuple[float, float]:
    """Mean over labels of cross-entropy and of average precision; NaN if a score is not finite."""
    if not np.isfinite(logits).all():
        return math.nan, math.nan
    wide, weights = logits[:, labels].astype(np.float64), data.weights[:, labels]
    positive, known = data.positive[:, labels], data.known[:, labels]
    losses = (weights * (np.logaddexp(0.0, wide) - np.where(positive, wide, 0.0))).sum(axis=0) / weights.sum(axis=0)
    precisions = [
        average_precision(positive[k, i], wide[k, i], None if data.weight is None else data.weight[k])
        for i, k in enumerate(known.T)
    ]
    return float(losses.mean()), float(np.mean(precisions))
