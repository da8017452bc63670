"""One thing of a suite changed at a time: leads, rate, or which ECG stands for a patient's echo.

The run's encoder stays as it is. With fewer leads, or at a lower rate, the probe learns from what it is then tested on,
as a hospital with such devices would do; leads that are left out are missing, and a lower rate is the stored ECG
sampled down, with the filter that this takes, and up again. With another window the same probe meets other ECGs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ecgclip_jax.data.labels import Labels
from ecgclip_jax.evaluation.index_ecg import EchoWindow
from ecgclip_jax.evaluation.protocols.lead_subsets import LEAD_SUBSETS
from ecgclip_jax.evaluation.registry import tasks
from ecgclip_jax.evaluation.results import ResultRow
from ecgclip_jax.evaluation.scored import Arm, Scored
from ecgclip_jax.evaluation.scoring import ranking_rows
from ecgclip_jax.evaluation.suites.arrays import embed_set, wanted_rows
from ecgclip_jax.evaluation.suites.changed_input import changed
from ecgclip_jax.evaluation.suites.context import Suite
from ecgclip_jax.evaluation.suites.fitting import probe_jobs, run_job, whole
from ecgclip_jax.evaluation.suites.opening import OpenSet, SuiteSplit
from ecgclip_jax.evaluation.suites.splits import test_split
from ecgclip_jax.evaluation.suites.wording import zero_shot
from ecgclip_jax.spec.signal import STORED_RATE_HZ
from ecgclip_jax.spec.suites import PRETRAINED, Axis, InputChange, SuiteSpec

LABEL_METRICS = ("auroc", "average_precision")
"""What is written per label."""


@dataclass(frozen=True)
class Setting:
    """A set of cohorts with one thing changed."""

    axis: Axis
    name: str
    opened: OpenSet

    @property
    def counted(self) -> list[bool]:
        """Per label, whether the change can change it: a window moves what is labelled by an echo, nothing else."""
        names = self.opened.names
        return [self.axis != "index_ecg" or tasks()[name].index_ecg == "before_echo" for name in names]


def input_settings(spec: SuiteSpec, opened: OpenSet) -> Iterator[Setting]:
    """The suite's lead subsets and rates, less what is the ECG as recorded."""
    for name in spec.lead_subsets:
        if len(LEAD_SUBSETS[name]) < len(LEAD_SUBSETS["12 leads"]):
            yield Setting("leads", name, _changed(opened, InputChange(leads=LEAD_SUBSETS[name])))
    for rate_hz in spec.rates_hz:
        if rate_hz < STORED_RATE_HZ:
            yield Setting("rate_hz", f"{rate_hz:g} Hz", _changed(opened, InputChange(rate_hz=rate_hz)))


def window_settings(
    windows: Sequence[EchoWindow], opened: OpenSet, reopen: Callable[[EchoWindow], OpenSet | str]
) -> Iterator[Setting]:
    """The same tests with the ECGs that each window chooses; none where no task waits for an echo.

    The suite's own window is among them, because means are here over the tasks of an echo alone.
    """
    if any(name in tasks() and tasks()[name].index_ecg == "before_echo" for name in opened.names):
        for window in windows:
            found = reopen(window)
            if not isinstance(found, str):
                yield Setting("index_ecg", window.name, replace(found, name=f"{opened.name}, {window.name}"))


def axis_rows(suite: Suite, setting: Setting) -> list[ResultRow]:
    """The run under a setting: its probe with all labels and, where it reads text, the headline prompts."""
    opened, model = setting.opened, suite.models.pretrained
    arm, rows = Arm(PRETRAINED, model.fingerprint), list[ResultRow]()
    wanted = suite.wanted if setting.axis == "index_ecg" else wanted_rows([opened])
    with suite.stage(f"axis {setting.axis}"):
        arrays = embed_set(
            opened,
            {PRETRAINED: model},
            suite.store,
            lambda name, n: suite.bar(f"embed {opened.name} {name}", n),
            wanted,
        )
        features = {name: own.models[PRETRAINED].features for name, own in arrays.items()}
        scored: dict[str, list[Scored]] = {test.name: [] for test in opened.tests}
        if "zero_shot" in suite.spec.protocols:
            scored = zero_shot(opened, {PRETRAINED: model}, arrays, suite.prompts[:1])
        for job in probe_jobs(arm, features, opened, [whole(opened)], suite.spec.probe):
            fitted = run_job(job, opened, suite.store)
            for test in opened.tests:
                scored[test.name].append(fitted.scored(arm, job.protocol, job.draw, test))
        for test in opened.tests:
            split = test_split(suite.spec, _narrowed(test, setting), suite.access)
            rows += ranking_rows(split, scored[test.name], LABEL_METRICS)
    narrow = dict(zip(opened.names, setting.counted, strict=True))
    chosen = [row for row in rows if row.label == "macro" or narrow[row.label]]
    return [replace(row, axis=setting.axis, setting=setting.name) for row in chosen]


def _changed(opened: OpenSet, change: InputChange) -> OpenSet:
    def of(split: SuiteSplit) -> SuiteSplit:
        return replace(split, parts=tuple(replace(p, opened=changed(p.opened, change)) for p in split.parts))

    tests = tuple(of(test) for test in opened.tests)
    name = f"{opened.name}, {change.name}"
    return replace(opened, name=name, train=of(opened.train), validation=of(opened.validation), tests=tests)


def _narrowed(test: SuiteSplit, setting: Setting) -> SuiteSplit:
    """Labels that the setting cannot change are known of nobody, so that no mean holds them."""
    own = test.labels
    return replace(test, labels=Labels(own.concepts, own.positive, own.known & np.array(setting.counted)))
