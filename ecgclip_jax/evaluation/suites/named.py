"""The suites by name. What each leaves out, and why, stands in its summary."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ecgclip_jax.evaluation.suites.presets import PRESETS
from ecgclip_jax.evaluation.tasks import EvaluationError
from ecgclip_jax.signal.hospitals import WorldName, load_world
from ecgclip_jax.spec.evaluation import FinetuneSpec
from ecgclip_jax.spec.experiment import Source
from ecgclip_jax.spec.suites import PRETRAINED, SCRATCH, ArmSpec, Claim, CohortSet, NullWorld, SuiteSpec, TestCohort

SYNTHETIC = "synthetic_hospitals"
LADDER = (
    ArmSpec(name="MERL R18", role="ladder", variant="merl_r18"),
    ArmSpec(name="+ ECGCLIP's input", role="ladder", variant="ecgclip_input", changed="eight leads, filters, mV"),
    ArmSpec(name="+ ECGCLIP's loss", role="ladder", variant="ecgclip_loss", changed="no uni-modal term"),
)
"""From Merl-R18 one change per row; the run itself, ResNet-34, is the last row."""
SHUFFLED = "shuffled reports"
BASELINES = (
    ArmSpec(name="supervised by report labels", role="baseline", variant="supervised"),
    ArmSpec(name="SimCLR, ECG alone", role="baseline", variant="simclr"),
    ArmSpec(name=SHUFFLED, role="null", variant="shuffled_reports"),
)
"""The run's encoder, trained on the same records otherwise; probed, and asked without labels where it reads text."""


def hospitals(world: WorldName = "default") -> CohortSet:
    """The ten synthetic hospitals: one inside, nine external."""
    cohort = SYNTHETIC if world == "default" else f"{SYNTHETIC}_{world}"

    def source(split: str) -> Source:
        return Source(cohort=cohort, split=split)

    external = [h.name for h in load_world(world).hospitals if h.role == "external"]
    return CohortSet(
        name=cohort,
        train=(source("train"),),
        validation=(source("validation"),),
        internal=TestCohort(name="internal", sources=(source("test"),)),
        external=tuple(TestCohort(name=name, sources=(source(name),)) for name in external),
    )


def real_cohorts() -> CohortSet:
    """PTB-XL's folds inside; open cohorts of other readers outside, each with all its splits."""

    def everything(cohort: str) -> TestCohort:
        splits = ("train", "validation", "test")
        return TestCohort(name=cohort, sources=tuple(Source(cohort=cohort, split=split) for split in splits))

    inside = {split: (Source(cohort="ptb_xl", split=split),) for split in ("train", "validation", "test")}
    return CohortSet(
        name="ptb_xl",
        train=inside["train"],
        validation=inside["validation"],
        internal=TestCohort(name="ptb_xl", sources=inside["test"]),
        external=tuple(everything(c) for c in ("challenge2021", "cpsc2018", "chapman_shaoxing_ningbo", "sph")),
    )


CLAIMS = (
    *(
        Claim(
            name=f"better_than_random_at_{fraction:g}_{source}",
            text=f"With {fraction:.0%} of the labels the pre-trained encoder, fine-tuned, beats the same encoder from "
            f"random initialisation in macro average precision ({source} labels), inside and on at least eight of the "
            "nine other hospitals",
            kind="superior",
            first=PRETRAINED,
            second=SCRATCH,
            first_fraction=fraction,
            second_fraction=fraction,
            metric="average_precision",
            label_source=source,
            on="each",
            alpha=0.01,
            at_least=9,
        )
        for fraction in (0.01, 0.1)
        for source in ("report", "independent")
    ),
    *(
        Claim(
            name=f"a_tenth_of_the_labels_suffices_{source}_{metric}",
            text=f"Fine-tuned on a tenth of the labels the pre-trained encoder is not inferior to the same encoder "
            f"trained from random initialisation on all of them (macro {metric.replace('_', ' ')}, {source} labels)",
            kind="non_inferior",
            first=PRETRAINED,
            second=SCRATCH,
            first_fraction=0.1,
            second_fraction=1.0,
            metric=metric,
            label_source=source,
            on="internal",
            margin=0.02,
        )
        for source in ("independent", "report")
        for metric in ("auroc", "average_precision")
    ),
)
"""Named before any figure. The main one is the first of non-inferiority: independent labels, macro AUROC."""


NULL_WORLDS = (
    NullWorld(
        name="shuffled reports",
        cohorts=hospitals(),
        prediction="trained on other patients' reports, the model tells findings by words no better than chance",
        expected="vanishes",
        model=SHUFFLED,
        protocol="zero_shot",
        label_source="report",
        margin=0.1,
        at_least=9,
    ),
    NullWorld(
        name="unseen targets",
        cohorts=hospitals("unseen_targets"),
        prediction="no probe tells independent targets, which leave no trace on the tracing, from chance",
        expected="vanishes",
        at_least=9,
    ),
    NullWorld(
        name="device-linked disease",
        cohorts=hospitals("device_linked"),
        prediction="a reduced ejection fraction is told by the device inside and missed outside",
        expected="breaks_outside",
        label="reduced_ejection_fraction",
        at_least=9,
    ),
)
"""Nine of ten tests, as for the claims. Shuffled reports have the wider margin: one training run's accidental direction
moves all concepts together (0.454 and 0.476 in the demo's two proofs)."""


def ecgclip89_small() -> SuiteSpec:
    """Minutes on a laptop CPU: a narrow encoder at 100 Hz, synthetic hospitals.

    The ladder is fine-tuned at a tenth of the labels; baselines and the arm of shuffled reports are probed only.
    """
    return SuiteSpec(
        name="ecgclip89_small",
        summary="89 tasks on ten synthetic hospitals with the narrow encoder of experiments/ecgclip89_synthetic.py",
        generate=True,
        cohorts=(hospitals(),),
        protocols=("zero_shot", "linear_probe", "nearest_neighbours", "fine_tune"),
        fine_tuning=FinetuneSpec(learning_rates=(1e-3, 3e-3), epochs=3, min_steps=100, batch=32, checks=5),
        experiment="ecgclip89_synthetic",
        arms=(*LADDER, *BASELINES),
        null_worlds=NULL_WORLDS,
        lead_subsets=("6 leads", "1 lead"),
        claims=CLAIMS,
    )


def ecgclip89() -> SuiteSpec:
    """The full size, for an accelerator: full fine-tuning, several seeds, synthetic and real cohorts in own tables."""
    small = ecgclip89_small()
    return small.replace(
        {
            "name": "ecgclip89",
            "summary": "89 tasks, full fine-tuning, on the synthetic hospitals and, apart from them, on real cohorts",
            "cohorts": (hospitals(), real_cohorts()),
            "fine_tuning": FinetuneSpec(epochs=20, min_steps=400),
            "lead_subsets": ("8 leads", "6 leads", "3 leads", "2 leads", "1 lead"),
            "rates_hz": (250.0, 125.0, 100.0),
            "echo_windows": True,
            "random_grid": True,
        }
    )


def quick() -> SuiteSpec:
    """Zero-shot and probes with all labels, on whatever of the suite's cohorts is prepared."""
    return SuiteSpec(
        name="quick",
        summary="89 tasks, zero-shot and linear probe with all labels",
        cohorts=(hospitals(), real_cohorts()),
        fractions=(1.0,),
        draws=1,
        min_test_positives=10,
        macro_min_labels=5,
        bootstrap_replicates=200,
    )


OURS: Mapping[str, Callable[[], SuiteSpec]] = {made.__name__: made for made in (ecgclip89_small, ecgclip89, quick)}
SUITES = {**OURS, **PRESETS}
"""Ours, and published protocols."""


def suite(name: str) -> SuiteSpec:
    """A suite by name.

    Raises:
        EvaluationError: no such suite.
    """
    if name not in SUITES:
        raise EvaluationError(f"no suite {name!r}; there are {', '.join(SUITES)}")
    return SUITES[name]()
