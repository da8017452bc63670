"""A suite of tasks as one frozen value: cohorts, protocols, arms, label fractions and the claims named beforehand."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from ecgclip_jax.spec.base import Spec
from ecgclip_jax.spec.evaluation import FinetuneSpec, GradientProbeSpec, LogisticProbeSpec
from ecgclip_jax.spec.experiment import Source
from ecgclip_jax.spec.signal import STORED_RATE_HZ, LeadName

SuiteProtocol = Literal["zero_shot", "linear_probe", "nearest_neighbours", "fine_tune"]
ArmRole = Literal["ladder", "baseline", "null"]
LeadSubset = Literal["12 leads", "8 leads", "6 leads", "3 leads", "2 leads", "1 lead"]
"""Which leads these are stands in `evaluation/protocols/lead_subsets.py`."""
Axis = Literal["leads", "rate_hz", "index_ecg"]
"""What a suite changes one setting at a time."""
PRETRAINED = "pre-trained"
SCRATCH = "from random initialisation"
"""The same encoder with the same recipe, its weights random at the start."""


class TestCohort(Spec):
    """One external hospital or cohort: splits of it that count together."""

    __test__ = False  # no pytest class

    name: str
    sources: tuple[Source, ...] = Field(min_length=1)


class InputChange(Spec):
    """What a protocol does to stored ECGs before a model's own input is made of them."""

    leads: tuple[LeadName, ...] = ()
    """All others are missing; empty: as recorded."""
    kept_s: float = Field(10.0, gt=0, le=10)
    """Seconds from the start that stay; what follows is 0 µV."""
    stretched_s: float = Field(10.0, gt=0, le=10)
    """As released only: seconds from the start that are stretched over the whole ten."""
    rate_hz: float = Field(STORED_RATE_HZ, gt=0, le=STORED_RATE_HZ)
    """Sampled down to it, and up again."""

    @property
    def name(self) -> str:
        """For the column `version` and for file names; empty for none."""
        words = ["leads " + " ".join(self.leads)] if self.leads else []
        words += [f"first {self.kept_s:g} s"] if self.kept_s < 10 else []
        words += [f"first {self.stretched_s:g} s stretched"] if self.stretched_s < 10 else []
        words += [f"{self.rate_hz:g} Hz"] if self.rate_hz < STORED_RATE_HZ else []
        return ", ".join(words)


class NoData(Spec):
    """A task of a published protocol that is not evaluated here, by name."""

    task: str
    cohort: str
    """As the cohort registry has it, or its published name."""
    why: str


class CohortSet(Spec):
    """Cohorts that belong together: where labels are learnt and chosen, the internal test, and external cohorts."""

    name: str
    train: tuple[Source, ...] = Field(min_length=1)
    validation: tuple[Source, ...] = Field(min_length=1)
    internal: TestCohort
    external: tuple[TestCohort, ...] = ()
    label_sets: tuple[str, ...] = ()
    """Forms of one published label set, whose classes are then the labels: the first whose vocabulary is the cohort's.
    Empty: the suite's tasks."""
    learnt_label_set: str = ""
    """As released only: the label set whose columns training reads in place of the others, by position."""
    input: InputChange = InputChange()

    @property
    def tests(self) -> tuple[TestCohort, ...]:
        """The internal test first."""
        return (self.internal, *self.external)


class ArmSpec(Spec):
    """A further pre-trained encoder that stands beside the run: a variant of the suite's experiment file."""

    name: str
    role: ArmRole
    variant: str
    changed: str = ""
    """What is different from the row above it in the ladder."""


class NullWorld(Spec):
    """A world in which a claim has to fail; how was named before any figure was seen, and is judged by intervals.

    What is looked at is one AUROC per test cohort, with all labels.
    """

    name: str
    cohorts: CohortSet
    """Its own patients, on whom the run is probed; or a set of the suite, for an arm that learnt in a null world."""
    prediction: str
    expected: Literal["vanishes", "breaks_outside"]
    """`vanishes`: the interval lies within `margin` of 0.5. `breaks_outside`: inside it lies more than `margin` above
    0.5, at every other test more than `margin` below the internal interval."""
    model: str = PRETRAINED
    protocol: SuiteProtocol = "linear_probe"
    label: str = "macro"
    """A task, or the mean over all of `label_source`."""
    label_source: Literal["report", "independent", "human_reread"] = "independent"
    margin: float = Field(0.05, gt=0, lt=0.5)
    at_least: int = Field(1, ge=1)
    """Test cohorts, the internal one among them, at which it must come out for the prediction to hold."""


class Claim(Spec):
    """One comparison named before any figure was seen: its protocol, fractions, figure and the labels it rests on."""

    name: str
    text: str
    kind: Literal["superior", "non_inferior"]
    first: str
    second: str
    protocol: SuiteProtocol = "fine_tune"
    first_fraction: float = Field(gt=0, le=1)
    second_fraction: float = Field(gt=0, le=1)
    metric: Literal["auroc", "average_precision"]
    label_source: Literal["report", "independent", "human_reread"]
    on: Literal["internal", "each"]
    """The internal test alone, or every test cohort, each with a verdict."""
    margin: float = Field(0.0, ge=0)
    """Of `non_inferior`."""
    alpha: float = Field(0.05, gt=0, lt=1)
    """Of `superior`, after Holm's correction over all tests of the suite's superiority claims."""
    at_least: int = Field(1, ge=1)
    """Test cohorts on which it must hold for the claim to hold."""

    @model_validator(mode="after")
    def _margin(self) -> Claim:
        if (self.kind == "non_inferior") != (self.margin > 0):
            raise ValueError(f"claim {self.name}: a non-inferiority margin is above 0, a superiority claim has none")
        return self


class SuiteSpec(Spec):
    """Everything that `ecgclip evaluate RUN --suite NAME` does; its fingerprint stands in every row."""

    name: str
    summary: str
    cohorts: tuple[CohortSet, ...] = Field(min_length=1)
    generate: bool = False
    """Whether its synthetic cohorts are generated first if they are not prepared."""
    tasks: tuple[str, ...] = ()
    """Names of the registry; empty: the 89."""
    protocols: tuple[SuiteProtocol, ...] = ("zero_shot", "linear_probe")
    fractions: tuple[float, ...] = (0.01, 0.1, 1.0)
    """Of the training patients whose labels are used."""
    few_labels: Literal["patients", "records"] = "patients"
    """`records`, as released only: one draw of single records, so that a patient may be in and out of it."""
    draws: int = Field(5, ge=1)
    """Nested draws of the patients, each with a training seed of its own; all labels are one draw for probes."""
    seeds: int = Field(5, ge=1)
    """Fine-tunings, and gradient probes, with all labels, each with a seed of its own."""
    probe: Annotated[LogisticProbeSpec | GradientProbeSpec, Field(discriminator="kind")] = LogisticProbeSpec()
    fine_tuning: FinetuneSpec = FinetuneSpec()
    ladder_fractions: tuple[float, ...] = (0.1,)
    """At which the ladder's arms are fine-tuned."""
    untrained_seeds: int = Field(1, ge=0)
    random_grid: bool = False
    """Whether the untrained encoders of `spec/random_grid.py` are probed, each with an input of its own."""
    experiment: str = ""
    """File of the shipped experiments that the arms are variants of."""
    arms: tuple[ArmSpec, ...] = ()
    null_worlds: tuple[NullWorld, ...] = ()
    """Each probed on its own patients, or found among the arms."""
    claims: tuple[Claim, ...] = ()
    beside: tuple[Literal["age", "ejection_fraction", "survival"], ...] = ("age", "ejection_fraction", "survival")
    """Numbers, and the time to an event, that stand beside the tasks."""
    lead_subsets: tuple[LeadSubset, ...] = ()
    """The run's encoder is asked and probed again with these leads alone, the others missing."""
    rates_hz: tuple[float, ...] = ()
    """The same with the stored ECGs sampled down to a rate and up again."""
    echo_windows: bool = False
    """The same with the ECGs that each window between ECG and echo chooses: 30, 1, 90, 365 days before, 30 after."""
    without_normalisation: bool = False
    """As released only: every model is given millivolts, whatever it was trained on."""
    without_data: tuple[NoData, ...] = ()
    """Tasks of the protocol that are not evaluated, by name."""
    remarks: tuple[str, ...] = ()
    """What a reader of the results must know of the protocol; they join the warnings."""
    prompt_language: Literal["en", "de"] = "en"
    prompt_sets: tuple[Literal["sentences", "class_names", "attributes"], ...] = Field(
        ("sentences", "class_names", "attributes"), min_length=1
    )
    """Wordings of zero-shot: each row is scored under every set; the first, named beforehand, is the headline."""
    min_test_positives: int = Field(20, ge=1)
    macro_min_labels: int = Field(10, ge=1)
    map_records: int = Field(2500, ge=0)
    """Test ECGs on the map of embeddings; 0 draws none."""
    bootstrap_replicates: int = Field(1000, ge=10)
    permutations: int = Field(5000, ge=10)
    """Of each test; a corrected p cannot be smaller than the number of tests divided by one more than these."""

    @property
    def null_cohorts(self) -> tuple[CohortSet, ...]:
        """Patients of null worlds, who are not those of the suite itself."""
        return tuple(world.cohorts for world in self.null_worlds if world.cohorts not in self.cohorts)

    @model_validator(mode="after")
    def _fractions(self) -> SuiteSpec:
        if list(self.fractions) != sorted(set(self.fractions)) or not all(0 < f <= 1 for f in self.fractions):
            raise ValueError(f"fractions: each once, rising, above 0 and at most 1; found {self.fractions}")
        asked = {f for c in self.claims for f in (c.first_fraction, c.second_fraction)}
        if stray := sorted(asked - set(self.fractions)):
            raise ValueError(f"claims speak of fractions {stray} that the suite does not fit")
        return self

    @model_validator(mode="after")
    def _permutations(self) -> SuiteSpec:
        """A claim that could not hold whatever is found would be no claim."""
        superior = [claim for claim in self.claims if claim.kind == "superior"]
        for own in self.cohorts if superior else ():
            tests = sum(len(own.tests) if claim.on == "each" else 1 for claim in superior)
            alpha = min(claim.alpha for claim in superior)
            if tests / (self.permutations + 1) >= alpha:
                least = math.ceil(tests / alpha)
                raise ValueError(
                    f"{tests} tests at {alpha:g} after Holm's correction need at least {least:,} permutations; found "
                    f"{self.permutations:,}, with which no claim can hold"
                )
        return self
