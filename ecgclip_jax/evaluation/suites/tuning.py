"""Fine-tuning within a suite: inputs preprocessed once per input specification, one job per arm, draw and seed."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from threading import Lock
from typing import Final

import numpy as np

from ecgclip_jax.contracts import EcgInput
from ecgclip_jax.evaluation.embedding import array_key
from ecgclip_jax.evaluation.protocols.few_labels import LabelDraw
from ecgclip_jax.evaluation.protocols.finetune import Advance, Finetuned, finetune
from ecgclip_jax.evaluation.protocols.tuning_data import Tunable, TuningData, tuning_inputs
from ecgclip_jax.evaluation.scored import ALL_LABELS, Arm
from ecgclip_jax.evaluation.suites.fitting import Fitted, Job
from ecgclip_jax.evaluation.suites.opening import OpenSet, SuiteSplit
from ecgclip_jax.spec.evaluation import FinetuneSpec

PROTOCOL: Final = "fine_tune"


@dataclass
class TuningInputs:
    """Preprocessed ECGs of a set's splits, made when first asked for; fits side by side ask one after the other."""

    opened: OpenSet
    specifications: int = 1
    """Input specifications whose ECGs are kept: the last that were asked for."""
    _made: OrderedDict[str, dict[str, EcgInput]] = field(default_factory=OrderedDict)
    _lock: Lock = field(default_factory=Lock)

    def of(self, model: Tunable, split: SuiteSplit) -> EcgInput:
        """The split's ECGs as the model's encoder takes them."""
        key = array_key(model.experiment.signal.canonical_json(), model.experiment.view.canonical_json())
        with self._lock:
            made = self._made.setdefault(key, {})
            self._made.move_to_end(key)
            while len(self._made) > self.specifications:
                self._made.popitem(last=False)
            if split.name not in made:
                made[split.name] = tuning_inputs(model, split.n_records, split.stored_chunks())
            return made[split.name]

    def data(self, model: Tunable, split: SuiteSplit) -> TuningData:
        """The split with its labels. Records weigh alike: what is learnt from is the sample as it is."""
        rows = np.arange(split.n_records)
        return TuningData(self.of(model, split), rows, split.labels.positive, split.labels.known)


@dataclass
class TuningPlan:
    """Jobs of a set. Of each arm and fraction the first draw searches the learning rate; the others wait for it.

    So every arm has the same number of trials, and a rate is chosen on validation as everything else.
    """

    inputs: TuningInputs
    settings: FinetuneSpec
    bar: Callable[[str, int], Advance]
    """Begins a progress bar of so many updates."""
    _rates: dict[tuple[str, float], Future[float]] = field(default_factory=dict)

    def job(self, arm: Arm, start: Callable[[], Tunable], draw: LabelDraw) -> Job:
        """Fine-tunes the model that `start` makes, whose weights the arm's fingerprint names, on a draw.

        The draw's number is the seed of its training.
        """
        searches = (arm.name, draw.fraction) not in self._rates
        rate = self._rates.setdefault((arm.name, draw.fraction), Future())

        def fit(draw: LabelDraw) -> Fitted:
            model, opened = start(), self.inputs.opened
            settings = self._settings(None if searches else rate.result())
            train = self.inputs.data(model, opened.train).take(draw.rows)
            steps = len(settings.learning_rates) * settings.steps(len(draw.rows))
            advance = self.bar(f"fine-tune {arm.name}, {draw.fraction:.0%} of labels, draw {draw.repeat}", steps)
            tuned = finetune(model, train, self.inputs.data(model, opened.validation), settings, draw.repeat, advance)
            scores = {test.name: tuned.scores(self.inputs.of(model, test)) for test in opened.tests}
            own = tuned.scores(self.inputs.of(model, opened.validation)) if draw.fraction == ALL_LABELS else None
            return Fitted(scores, _note(tuned), tuned.learning_rate, validation=own)

        return Job(arm, PROTOCOL, draw, ("fine-tune", self.settings.fingerprint(), draw.repeat), fit)

    def remember(self, job: Job, fitted: Fitted | BaseException) -> None:
        """Hands the rate that a first draw chose, kept or found now, to those that wait for it; or its error."""
        rate = self._rates.get((job.arm.name, job.draw.fraction))
        if job.protocol != PROTOCOL or rate is None or rate.done():
            return
        if isinstance(fitted, BaseException):
            rate.set_exception(fitted)
        else:
            rate.set_result(fitted.choice)

    def _settings(self, rate: float | None) -> FinetuneSpec:
        """Those of the plan, with one rate where a first draw has found one."""
        found = rate is not None and math.isfinite(rate)
        return self.settings.replace({"learning_rates": (rate,)}) if found else self.settings


def _note(tuned: Finetuned) -> str:
    return f"learning rate {tuned.learning_rate:g}, check after {tuned.check.step} updates, chosen on validation"
