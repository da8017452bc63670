"""Fine-tunings side by side give what they give in turn; whoever waits for a rate gets it, or the reason."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from suite_world import TASKS, SuiteFake, make_suite, make_world, opener

from ecgclip_jax.contracts import EcgInput
from ecgclip_jax.evaluation.embedding import Store
from ecgclip_jax.evaluation.scored import Arm
from ecgclip_jax.evaluation.suites import opening, tuning
from ecgclip_jax.evaluation.suites.fitting import Fitted, Job, whole
from ecgclip_jax.evaluation.suites.opening import OpenSet, open_set
from ecgclip_jax.evaluation.suites.side_by_side import fitted_in_turn
from ecgclip_jax.evaluation.suites.tuning import PROTOCOL, TuningInputs, TuningPlan
from ecgclip_jax.spec.evaluation import FinetuneSpec
from ecgclip_jax.spec.experiment import Experiment
from ecgclip_jax.spec.signal import merl

RATES = (1e-3, 3e-3)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> OpenSet:
    monkeypatch.setattr(opening, "open_cohort", opener(make_world()))
    found = open_set("nowhere", make_suite().cohorts[0], TASKS, None, "refuse", [])
    assert isinstance(found, OpenSet)
    return found


class Fakes:
    """In place of fine-tuning: the first to search is the slowest; scores tell draw and rate."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fails: bool = False) -> None:
        self.trials: list[tuple[int, tuple[float, ...]]] = []
        self.fails = fails
        monkeypatch.setattr(tuning, "finetune", self.finetune)
        monkeypatch.setattr(tuning, "tuning_inputs", lambda model, n, chunks: n)
        monkeypatch.setattr(tuning, "_note", lambda tuned: "")
        monkeypatch.setattr(TuningInputs, "of", lambda inputs, model, split: split.n_records)
        monkeypatch.setattr(TuningInputs, "data", lambda inputs, model, split: SimpleNamespace(take=lambda rows: rows))

    def finetune(self, model: Any, train: Any, validation: Any, settings: FinetuneSpec, seed: int, *_: Any) -> Any:
        self.trials.append((seed, settings.learning_rates))
        time.sleep(0.02 if len(settings.learning_rates) > 1 else 0)
        if self.fails:
            raise RuntimeError("out of memory")
        rate = settings.learning_rates[-1]

        def scores(n: int) -> np.ndarray:
            return np.full((n, len(TASKS)), seed + rate, np.float32)

        return SimpleNamespace(scores=scores, learning_rate=rate)


def jobs_of(plan: TuningPlan, opened: OpenSet) -> list[Job]:
    draws = [replace(whole(opened), repeat=n) for n in range(4)]
    return [plan.job(Arm("a", "f"), SuiteFake, draw) for draw in draws]


def run(opened: OpenSet, at_once: int) -> list[np.ndarray]:
    plan = TuningPlan(TuningInputs(opened), FinetuneSpec(learning_rates=RATES), lambda name, n: lambda done: None)
    fits = fitted_in_turn(PROTOCOL, jobs_of(plan, opened), opened, Store(None), plan, at_once)
    return [fitted.scores["internal"] for fitted in fits]


@pytest.mark.parametrize("at_once", [1, 3])
def test_the_first_searches_the_others_take_over_and_order_stays(
    monkeypatch: pytest.MonkeyPatch, opened: OpenSet, at_once: int
) -> None:
    fakes = Fakes(monkeypatch)
    found = run(opened, at_once)
    assert [float(scores[0, 0]) for scores in found] == pytest.approx([n + RATES[1] for n in range(4)])
    assert sorted(fakes.trials) == [(0, RATES), *((n, RATES[1:]) for n in range(1, 4))]


@pytest.mark.parametrize("at_once", [1, 3])
def test_what_a_probe_chose_is_no_learning_rate(monkeypatch: pytest.MonkeyPatch, opened: OpenSet, at_once: int) -> None:
    fakes = Fakes(monkeypatch)
    plan = TuningPlan(TuningInputs(opened), FinetuneSpec(learning_rates=RATES), lambda name, n: lambda done: None)
    tunings = jobs_of(plan, opened)
    strength = Fitted({test.name: np.zeros(test.labels.positive.shape) for test in opened.tests}, choice=0.1)
    probe = Job(tunings[0].arm, "linear_probe", tunings[0].draw, ("probe",), lambda draw: strength)
    for protocol, jobs in (("linear_probe", [probe]), (PROTOCOL, tunings)):
        list(fitted_in_turn(protocol, jobs, opened, Store(None), plan, at_once))
    assert sorted(fakes.trials) == [(0, RATES), *((n, RATES[1:]) for n in range(1, 4))]


@pytest.mark.parametrize("at_once", [1, 3])
def test_nobody_waits_for_a_search_that_failed(monkeypatch: pytest.MonkeyPatch, opened: OpenSet, at_once: int) -> None:
    Fakes(monkeypatch, fails=True)
    with pytest.raises(RuntimeError, match="out of memory"):
        run(opened, at_once)


@dataclass(frozen=True)
class OtherInput(SuiteFake):
    """Takes its ECGs under an input specification of its own."""

    @property
    def experiment(self) -> Experiment:
        return super().experiment.replace({"signal": merl(name="another")})


def test_inputs_of_the_last_specifications_are_kept(monkeypatch: pytest.MonkeyPatch, opened: OpenSet) -> None:
    made: list[int] = []

    def tuning_inputs(model: Any, n: int, chunks: Any) -> EcgInput:
        made.append(n)
        return EcgInput(np.zeros((n, 2, 1), np.float32), np.ones((n, 1), bool), np.ones((n, 2), bool))

    monkeypatch.setattr(tuning, "tuning_inputs", tuning_inputs)
    for specifications, times in ((1, 3), (2, 2)):
        made.clear()
        inputs = TuningInputs(opened, specifications)
        for model in (SuiteFake(), SuiteFake(), OtherInput(), SuiteFake()):
            inputs.of(model, opened.train)
        assert len(made) == times
