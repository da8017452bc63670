"""Zero-shot of a suite under several prompt sets: what a figure owes to the choice of words stands beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from ecgclip_jax.evaluation.protocols.zero_shot import prompt_matrix, zero_shot_scores
from ecgclip_jax.evaluation.results import Exclusion, ResultRow
from ecgclip_jax.evaluation.scored import Arm, Scored, Wording
from ecgclip_jax.evaluation.suites.arrays import SplitArrays
from ecgclip_jax.evaluation.suites.context import SuiteModel
from ecgclip_jax.evaluation.suites.opening import OpenSet
from ecgclip_jax.text.prompts import PromptSet


def zero_shot(
    opened: OpenSet, encoders: Mapping[str, SuiteModel], arrays: Mapping[str, SplitArrays], prompts: Sequence[PromptSet]
) -> dict[str, list[Scored]]:
    """By test: cosines with every set's prompts, headline set first, for encoders that were trained with text."""
    found: dict[str, list[Scored]] = {test.name: [] for test in opened.tests}
    for own in prompts:
        wordings = {name: own.wordings(name, opened.concepts[name]) for name in opened.names}
        excluded = {name: Exclusion.NO_PROMPT for name in opened.names if not wordings[name]}
        wording = Wording(own.name, own.sha)
        for arm, model in encoders.items():
            if not model.experiment.objective.reads_text:
                continue
            vectors = prompt_matrix(opened.names, wordings, lambda texts, m=model: np.asarray(m.encode_text(texts)))
            for test in opened.tests:
                embedding = arrays[test.name].models[arm].embedding
                known = len(excluded) < len(opened.names)
                scores = zero_shot_scores(embedding, vectors) if known else np.full(test.labels.known.shape, np.nan)
                found[test.name].append(
                    Scored(Arm(arm, model.fingerprint), "zero_shot", scores, excluded, wording=wording)
                )
    return found


def with_spread(rows: Sequence[ResultRow], headline: str) -> list[ResultRow]:
    """The rows, those of the headline prompts with how far the values of all prompt sets lie apart.

    A macro mean of fewer labels, by prompts that lack one, is another mean and does not count.
    """
    values: dict[tuple[object, ...], list[float]] = {}
    for row in rows:
        if row.prompt_set and math.isfinite(row.value):
            values.setdefault(_question(row), []).append(row.value)
    spread = {key: max(own) - min(own) for key, own in values.items() if len(own) > 1}
    return [
        replace(row, prompt_spread=spread.get(_question(row), math.nan)) if row.prompt_set == headline else row
        for row in rows
    ]


def _question(row: ResultRow) -> tuple[object, ...]:
    """What rows of different prompts have in common; the split's name is unique to a suite's set of cohorts."""
    model, data = (row.model, row.compared_with), (row.cohort, row.split, row.subgroup, row.axis, row.setting)
    return *model, *data, row.label, row.label_group, row.metric, row.n_labels, row.excluded_labels
