"""Fine-tuning learns what can be learned, forgets what is unknown, and chooses by validation alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import islice
from operator import itemgetter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import average_precision_score, log_loss
from support.tiny_training import tiny_experiment

from ecgclip_jax.evaluation.protocols.finetune import Finetuned, FinetuneError, batches, check_steps, finetune, schedule
from ecgclip_jax.evaluation.protocols.linear_probe import ProbeData, fit_probe
from ecgclip_jax.evaluation.protocols.tuning_data import TuningData, host_input, tuning_inputs
from ecgclip_jax.evaluation.protocols.tuning_program import Rates, tuning_program
from ecgclip_jax.models.functional import PureModule
from ecgclip_jax.models.resnet1d import ResNet1D
from ecgclip_jax.signal.operators import build_operators
from ecgclip_jax.signal.preprocessing import preprocess
from ecgclip_jax.spec.encoders import ResNet1DSpec
from ecgclip_jax.spec.evaluation import ECGCLIP_AS_RELEASED, FinetuneSpec
from ecgclip_jax.spec.experiment import Experiment

BATCH = 15
"""Divides by none of the test's eight devices, so that one is used and one program compiled."""
SETTINGS = FinetuneSpec(
    learning_rates=(3e-3, 1e-5), epochs=1, min_steps=48, batch=BATCH, checks=4, weight_decay=0.1, head_rate_factor=3.0
)
EXPERIMENT = tiny_experiment(ecg_encoder=ResNet1DSpec(width=4, pool_width=16, pool_heads=2))
SAMPLES = EXPERIMENT.signal.samples


@dataclass(frozen=True)
class Start:
    """Weights to start from."""

    experiment: Experiment
    params: dict[str, Any]
    batch_stats: dict[str, Any]


def start(seed: int) -> Start:
    """Random weights, drawn without compiling anything."""
    rng = np.random.default_rng(seed)
    tower = PureModule(lambda rngs: ResNet1D(EXPERIMENT.ecg_encoder, leads=2, samples=SAMPLES, rngs=rngs))
    params, stats = jax.eval_shape(tower.init, jax.random.key(0))
    params = jax.tree.map(lambda leaf: _drawn(rng, leaf.shape), params)
    return Start(EXPERIMENT, {"ecg": params}, {"ecg": jax.tree.map(lambda leaf: np.ones(leaf.shape, "f"), stats)})


def _drawn(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Kernels of the usual size; norms and biases of one."""
    if len(shape) == 1:
        return np.ones(shape, np.float32)
    return rng.normal(scale=1 / np.sqrt(np.prod(shape[:-1])), size=shape).astype(np.float32)


@pytest.fixture(scope="module")
def model() -> Start:
    return start(0)


def data(seed: int, n: int = 120) -> TuningData:
    """Labels: a fast wave in lead 0, a slow one in lead 1 (half unknown), never present, noise."""
    rng = np.random.default_rng(seed)
    positive = rng.random((n, 4)) < (0.4, 0.5, 0.0, 0.3)
    known = rng.random((n, 4)) < (1.0, 0.5, 1.0, 1.0)
    time_s = np.arange(SAMPLES) / EXPERIMENT.signal.rate_hz
    waves = np.stack([np.sin(2 * np.pi * 9 * time_s), np.sin(2 * np.pi * 2 * time_s)], axis=-1)
    signal = waves * positive[:, None, :2] + rng.normal(scale=0.7, size=(n, SAMPLES, 2))
    ecg = host_input(signal.astype(np.float16), np.ones((n, 2), bool), np.ones((n, SAMPLES), bool))
    return TuningData(ecg, np.arange(n), positive, known, rng.uniform(0.5, 2.0, n))


def validation_figures(logits: np.ndarray, held: TuningData, labels: list[int]) -> tuple[float, float]:
    """scikit-learn's mean loss and mean average precision over labels, weighted, known records only."""
    figures = []
    for label in labels:
        known = held.known[:, label]
        truth, score, weight = held.positive[known, label], logits[known, label], held.weight[known]
        figures.append(
            (
                log_loss(truth, 1 / (1 + np.exp(-score.astype(np.float64))), sample_weight=weight),
                average_precision_score(truth, score, sample_weight=weight),
            )
        )
    loss, precision = np.mean(figures, axis=0)
    return float(loss), float(precision)


def test_what_can_be_learned_is_learned_and_validation_chooses(model: Start) -> None:
    train, held, test = data(1), data(2), data(3)
    steps: list[int] = []
    tuned = finetune(model, train, held, SETTINGS, 0, steps.append)
    assert tuned.fitted.tolist() == tuned.chosen_by.tolist() == [True, True, False, True]
    scores = tuned.scores(test.ecg)
    assert scores.dtype == np.float32
    assert np.isnan(scores[:, 2]).all()
    for label in (0, 1):
        assert average_precision_score(test.positive[:, label], scores[:, label]) > 0.95
    assert tuned.learning_rate == 3e-3
    assert sum(steps) == 2 * SETTINGS.steps(len(train)) == 96
    loss, precision = validation_figures(tuned.scores(held.ecg), held, [0, 1, 3])
    assert tuned.check.validation_loss == pytest.approx(loss, rel=1e-4)
    assert tuned.check.macro_average_precision == pytest.approx(precision, rel=1e-6)
    every = [check.macro_average_precision for trial in tuned.trials for check in trial.checks]
    assert tuned.check.macro_average_precision == max(every)
    assert [check.step for check in tuned.trials[0].checks] == [0, 12, 24, 36, 48]
    assert tuned.epochs == tuned.check.step * BATCH / len(train)


def test_the_lowest_validation_loss_may_choose_too_and_patience_ends_a_training(model: Start) -> None:
    settings = SETTINGS.replace({"selection": "loss", "patience": 1, "learning_rates": (0.3,), "head_start": "uniform"})
    tuned = finetune(model, data(1), data(2), settings.replace({"min_steps": 64, "checks": 32}), 0)
    (trial,) = tuned.trials
    losses = [check.validation_loss for check in trial.checks]
    assert trial.best == int(np.argmin(losses))
    assert trial.ended == "patience"
    assert len(losses) == trial.best + 2 < 33
    loss, _ = validation_figures(tuned.scores(data(2).ecg), data(2), [0, 1, 3])
    assert loss == pytest.approx(losses[trial.best], rel=1e-4)


def test_unknown_labels_and_companions_change_nothing_and_a_seed_repeats_itself(model: Start) -> None:
    train, held, test = data(1), data(2), data(3)
    settings = SETTINGS.replace({"learning_rates": (3e-3,), "min_steps": 16, "checks": 2})
    scores = finetune(model, train, held, settings, 0).scores(test.ecg)
    flipped = [replace(d, positive=d.positive ^ ~d.known) for d in (train, held)]
    assert np.array_equal(finetune(model, *flipped, settings, 0).scores(test.ecg), scores, equal_nan=True)
    assert not np.array_equal(finetune(model, train, held, settings, 1).scores(test.ecg), scores, equal_nan=True)
    assert not np.array_equal(finetune(start(1), train, held, settings, 0).scores(test.ecg), scores, equal_nan=True)
    # A subset that is taken is the same as one that never had the others.
    half = np.arange(1, 120, 2)
    alone = TuningData(
        jax.tree.map(lambda values: values[half], train.ecg),
        np.arange(60),
        train.positive[half],
        train.known[half],
        train.weight[half],
    )
    plain = settings.replace({"head_start": "log_odds"})
    taken = finetune(model, train.take(half), held, plain, 0).scores(test.ecg)
    assert np.array_equal(finetune(model, alone, held, plain, 0).scores(test.ecg), taken, equal_nan=True)


def test_the_loss_is_the_mean_over_labels_of_weighted_cross_entropy_over_known_records(model: Start) -> None:
    train = data(1)
    settings = SETTINGS.replace({"learning_rates": (1e-12,), "min_steps": 1, "checks": 1, "head_start": "log_odds"})
    (_, check) = finetune(model, train, data(2), settings, 0).trials[0].checks
    entropies = []
    for label in (0, 1, 3):
        weight = train.weight * train.known[:, label]
        share = (weight * train.positive[:, label]).sum() / weight.sum()
        entropies.append(-share * np.log(share) - (1 - share) * np.log(1 - share))
    # The head starts at the training log-odds, and eight batches of 15 are one pass over all 120.
    assert check.step == 8
    assert check.train_loss == pytest.approx(np.mean(entropies), rel=1e-5)


def seen(tuned: Finetuned, tuning: TuningData) -> np.ndarray:
    """The features of all 120 ECGs, in parts that the compiled program takes."""
    parts = np.split(np.arange(120), 120 // BATCH)
    ecgs = [jax.tree.map(itemgetter(part), tuning.ecg) for part in parts]
    return np.concatenate([tuned.program.features(tuned.params["ecg"], tuned.stats, ecg) for ecg in ecgs])


def test_the_head_begins_as_the_linear_probe(model: Start) -> None:
    train, held, test = data(1), data(2), data(3)
    # So high a rate only does harm: what was there before the first update is kept.
    settings = SETTINGS.replace({"learning_rates": (1.0,), "min_steps": 1, "checks": 1, "selection": "loss"})
    tuned = finetune(model, train, held, settings, 0)
    assert tuned.check.step == 0
    features = [seen(tuned, d) for d in (train, held, test)]
    parts = [ProbeData(f, d.positive, d.known) for f, d in zip(features, (train, held), strict=False)]
    np.testing.assert_allclose(
        tuned.scores(test.ecg), fit_probe(*parts).scores(features[2]), rtol=1e-3, atol=1e-3, equal_nan=True
    )
    # BatchNorm's statistics are those of the training ECGs by now, not those that the weights came with.
    stem = np.abs(tuned.stats["stem_norm"]["mean"] - model.batch_stats["ecg"]["stem_norm"]["mean"])
    assert stem.min() > 0.5


def test_one_update_is_adamws(model: Start) -> None:
    train, program = data(1), tuning_program(EXPERIMENT, BATCH)
    rng = np.random.default_rng(0)
    head = {"kernel": rng.normal(size=(program.width, 4)).astype(np.float32), "bias": np.zeros(4, np.float32)}
    state = program.start(model.params["ecg"], model.batch_stats["ecg"], head)
    before = jax.device_get(state.params)
    ecg = jax.tree.map(lambda values: values[:BATCH], train.ecg)
    positive, share = train.positive[:BATCH].astype(np.float32), np.ones((BATCH, 4), np.float32)
    state, _ = program.step(state, ecg, positive, share, Rates(*map(jnp.float32, (1e-3, 1e-2, 0.1))))
    after = jax.device_get(state.params)
    # Adam's first step is the rate in the direction of the gradient, whatever its size; kernels decay besides.
    moved = np.abs(after["head"]["kernel"] - before["head"]["kernel"] * (1 - 1e-2 * 0.1))
    np.testing.assert_allclose(moved, 1e-2, rtol=1e-2)
    np.testing.assert_allclose(np.abs(after["head"]["bias"]), 1e-2, rtol=1e-2)
    stem = after["ecg"]["stem"]["kernel"] - before["ecg"]["stem"]["kernel"] * (1 - 1e-3 * 0.1)
    np.testing.assert_allclose(np.median(np.abs(stem)), 1e-3, rtol=1e-2)
    assert set(after["ecg"]) == set(model.params["ecg"]) - {"downconv", "attention_pool"}


def test_rates_checks_and_batches() -> None:
    warm = FinetuneSpec(batch=10, epochs=10, min_steps=1)
    assert warm.steps(100) == 100
    assert warm.steps(3) == 3
    rates = [schedule(warm, step, 100, 100) for step in range(100)]
    np.testing.assert_allclose(rates[:10], np.arange(1, 11) / 10)
    np.testing.assert_allclose(rates[10:], (1 + np.cos(np.pi * np.arange(90) / 90)) / 2)
    halved = [schedule(ECGCLIP_AS_RELEASED, step, 640, 64) for step in range(30)]
    assert halved == [1.0] * 10 + [0.5] * 10 + [0.25] * 10
    assert sorted(check_steps(10, 4)) == [3, 5, 8, 10]
    assert check_steps(3, 10) == {1, 2, 3}
    drawn = np.concatenate(list(islice(batches(7, 5, seed=0), 7)))
    passes = drawn.reshape(5, 7)
    assert all(sorted(p) == list(range(7)) for p in passes.tolist())
    assert len({tuple(p) for p in passes.tolist()}) > 1


def test_nothing_to_learn_or_choose_by_and_weights_that_are_not_finite_are_said(model: Start) -> None:
    train, held = data(1), data(2)
    unknown = replace(train, known=np.zeros_like(train.known))
    with pytest.raises(FinetuneError, match="positives and negatives in training, found none of 4"):
        finetune(model, unknown, held, SETTINGS, 0)
    with pytest.raises(FinetuneError, match="in validation, found none"):
        finetune(model, train, replace(held, positive=np.zeros_like(held.positive)), SETTINGS, 0)
    broken = jax.tree.map(np.copy, model.params)
    broken["ecg"]["stage4"]["block1"]["norm2"]["bias"][:] = np.inf
    for head, what in (("linear_probe", "features"), ("log_odds", "logits")):
        with pytest.raises(FinetuneError, match=f"the encoder's {what} are not finite"):
            finetune(replace(model, params=broken), train, held, SETTINGS.replace({"head_start": head}), 0)


def test_a_training_that_diverges_leaves_what_was_best_before(model: Start) -> None:
    settings = SETTINGS.replace({"learning_rates": (1e30,), "min_steps": 8})
    tuned = finetune(model, data(1), data(2), settings, 0)
    assert tuned.trials[0].ended == "diverged"
    assert tuned.check.step == 0
    assert np.isfinite(tuned.scores(data(3).ecg)[:, tuned.fitted]).all()


def test_inputs_are_the_models_own_whatever_the_chunks(model: Start) -> None:
    rng = np.random.default_rng(0)
    ecg_uv = rng.integers(-500, 500, (5, 5000, 12)).astype(np.int16)
    ecg_uv[2, :, 1] = -32768
    mains = np.array([50, 60, np.nan, 50, 60], np.float32)
    spec = EXPERIMENT.signal
    operators = jax.device_put(build_operators(spec))
    expected = preprocess(
        spec, operators, np.resize(ecg_uv, (64, 5000, 12)), {"mains_hz": np.resize(mains, 64)},
        {"mains_hz": np.isfinite(np.resize(mains, 64))},
    )  # fmt: skip
    made = tuning_inputs(model, 5, [(ecg_uv[:1], mains[:1]), (ecg_uv[1:], mains[1:])])
    assert made.signal.dtype == np.float16
    np.testing.assert_allclose(made.signal, expected.signal[:5], rtol=1e-3, atol=1e-6)
    np.testing.assert_array_equal(made.lead_present, expected.lead_present[:5])
    np.testing.assert_array_equal(made.sample_valid, expected.sample_valid[:5])
    with pytest.raises(ValueError, match="expected 5 ECGs in all chunks, found 1"):
        tuning_inputs(model, 5, [(ecg_uv[:1], mains[:1])])
    with pytest.raises(ValueError, match="expected 3 ECGs in all chunks, found more"):
        tuning_inputs(model, 3, [(ecg_uv, mains)])
