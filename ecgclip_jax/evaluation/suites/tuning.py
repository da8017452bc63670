"""Fine-tuning within a suite: inputs preprocessed once per input specification, one job per arm, draw and seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from ecgclip_jax.contracts import EcgInput
from ecgclip_jax.evaluation.embedding import READ_AT_A_TIME, array_key
from ecgclip_jax.evaluation.protocols.few_labels import LabelDraw
from ecgclip_jax.evaluation.protocols.finetune import Advance, Finetuned, finetune
from ecgclip_jax.evaluation.protocols.tuning_data import Chunk, Tunable, TuningData, tuning_inputs
from ecgclip_jax.evaluation.scored import ALL_LABELS, Arm
from ecgclip_jax.evaluation.suites.fitting import Fitted, Job
from ecgclip_jax.evaluation.suites.opening import OpenSet, SuiteSplit
from ecgclip_jax.spec.evaluation import FinetuneSpec


@dataclass
class TuningInputs:
    """Preprocessed ECGs of a set's splits, made when first asked for; those of one input specification at a time."""

    opened: OpenSet
    _key: str = ""
    _made: dict[str, EcgInput] = field(default_factory=dict)

    def of(self, model: Tunable, split: SuiteSplit) -> EcgInput:
        """The split's ECGs as the model's encoder takes them."""
        key = array_key(model.experiment.signal.canonical_json(), model.experiment.view.canonical_json())
        if key != self._key:
            self._key, self._made = key, {}
        if split.name not in self._made:
            self._made[split.name] = tuning_inputs(model, split.n_records, _chunks(split))
        return self._made[split.name]

    def data(self, model: Tunable, split: SuiteSplit) -> TuningData:
        """The split with its labels. Records weigh alike: what is learnt from is the sample as it is."""
        rows = np.arange(split.n_records)
        return TuningData(self.of(model, split), rows, split.labels.positive, split.labels.known)


def _chunks(split: SuiteSplit) -> Iterator[Chunk]:
    for part in split.parts:
        mains = part.opened.numbers("mains_hz")
        for start in range(0, len(part.rows), READ_AT_A_TIME):
            rows = part.rows[start : start + READ_AT_A_TIME]
            yield part.opened.read_ecg(rows.tolist()), mains[rows].astype(np.float32)


@dataclass
class TuningPlan:
    """Jobs of a set. Of each arm and fraction the first draw searches the learning rate; the others take it over.

    So every arm has the same number of trials, and a rate is chosen on validation as everything else.
    """

    inputs: TuningInputs
    settings: FinetuneSpec
    bar: Callable[[str, int], Advance]
    """Begins a progress bar of so many updates."""
    _rates: dict[tuple[str, float], float] = field(default_factory=dict)

    def job(self, arm: Arm, start: Callable[[], Tunable], draw: LabelDraw) -> Job:
        """Fine-tunes the model that `start` makes, whose weights the arm's fingerprint names, on a draw.

        The draw's number is the seed of its training.
        """

        def fit(draw: LabelDraw) -> Fitted:
            model, opened = start(), self.inputs.opened
            train = self.inputs.data(model, opened.train).take(draw.rows)
            settings = self._settings(arm, draw)
            steps = len(settings.learning_rates) * settings.steps(len(draw.rows))
            advance = self.bar(f"fine-tune {arm.name}, {draw.fraction:.0%} of labels, draw {draw.repeat}", steps)
            tuned = finetune(model, train, self.inputs.data(model, opened.validation), settings, draw.repeat, advance)
            scores = {test.name: tuned.scores(self.inputs.of(model, test)) for test in opened.tests}
            own = tuned.scores(self.inputs.of(model, opened.validation)) if draw.fraction == ALL_LABELS else None
            return Fitted(scores, _note(tuned), tuned.learning_rate, validation=own)

        return Job(arm, "fine_tune", draw, ("fine-tune", self.settings.fingerprint(), draw.repeat), fit)

    def remember(self, job: Job, fitted: Fitted) -> None:
        """Takes over the rate that a first draw chose, kept or found now."""
        self._rates.setdefault((job.arm.name, job.draw.fraction), fitted.choice)

    def _settings(self, arm: Arm, draw: LabelDraw) -> FinetuneSpec:
        rate = self._rates.get((arm.name, draw.fraction))
        return self.settings if rate is None else self.settings.replace({"learning_rates": (rate,)})


def _note(tuned: Finetuned) -> str:
    return f"learning rate {tuned.learning_rate:g}, check after {tuned.check.step} updates, chosen on validation"
