"""Classes of a published label set as the labels of a prepared cohort: every record that the set keeps counts.

Published protocols score each test record and exclude nobody for age or pacing, unlike the registry's tasks; intervals
resample patients all the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ecgclip_jax.data.sources import CohortError, CohortSplit
from ecgclip_jax.evaluation.registry import CohortGroup, cohort_groups, registered_cohort
from ecgclip_jax.evaluation.task_labels import TaskLabels, sampling_weights
from ecgclip_jax.text.label_sets import LabelSet, RecordLabels, label_set


def label_set_of(split: CohortSplit, forms: Sequence[str]) -> LabelSet:
    """The first of a label set's forms that is in the vocabulary of the split.

    Raises:
        CohortError: none is.
    """
    found = sorted(set(split.table.column("label_vocabulary").to_pylist()))
    fitting = [label_set(name) for name in forms if [label_set(name).vocabulary] == found]
    if not fitting:
        expected = ", ".join(label_set(name).vocabulary for name in forms)
        raise CohortError(
            f"{split.name}: the label set {forms[0]} needs labels in the vocabulary {expected}, found "
            f"{', '.join(found) or 'no record'}; prepare the cohort from its published form"
        )
    return fitting[0]


def class_labels(split: CohortSplit, classes: LabelSet) -> TaskLabels:
    """What each record of a split is known to have of a label set's classes.

    Raises:
        CohortError: labels of another vocabulary, or a cohort of which nobody has said where its labels come from.
    """
    label_set_of(split, (classes.name,))
    group = _ecg_group(split)
    names = tuple(c.name for c in classes.classes)
    read: dict[tuple[str, ...], RecordLabels] = {}
    codes = [tuple(own) for own in split.table.column("label_codes").to_pylist()]
    for own in codes:
        if own not in read:
            read[own] = classes.labels_of(own)
    empty = np.zeros((0, len(names)), bool)
    return TaskLabels(
        cohort=split.cohort,
        tasks=names,
        positive=np.array([read[own].positive for own in codes]) if codes else empty,
        known=np.array([read[own].known for own in codes]) if codes else empty,
        index=np.ones((len(codes), len(names)), bool),
        n_excluded={},
        weight=sampling_weights(split),
        groups=dict.fromkeys(names, group),
        unavailable={},
    )


def _ecg_group(split: CohortSplit) -> CohortGroup:
    cohort = registered_cohort(split.cohort)
    if cohort is None or (cohort, "ecg") not in cohort_groups():
        raise CohortError(
            f"{split.cohort} stands in no row of task_cohorts.csv with ECG labels, so their source is unknown"
        )
    return cohort_groups()[cohort, "ecg"]
