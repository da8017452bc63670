"""Columns that rows of every kind share: whose row it is, which label, and the estimate with its interval."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from ecgclip_jax.evaluation.results import Exclusion, reasons
from ecgclip_jax.evaluation.scored import ALL_LABELS, Arm, ClassCounts, TestSplit
from ecgclip_jax.metrics.intervals import Interval

NO_ESTIMATE: Final = {"value": math.nan, "ci_low": math.nan, "ci_high": math.nan, "discarded_draws": math.nan}


def row_identity(
    split: TestSplit, arm: Arm, other: Arm | None, protocol: str, fraction: float = ALL_LABELS, n_repeats: int = 1
) -> dict[str, Any]:
    """The columns that say whose row it is; the others are empty."""
    return (
        {"availability": "", "subgroup": ""}
        | dict(split.common)
        | {
            "model": arm.name,
            "compared_with": other.name if other else "",
            "model_seed": arm.seed,
            "model_fingerprint": arm.fingerprint,
            "protocol": protocol,
            "label_fraction": fraction,
            "n_repeats": n_repeats,
            "replicates": split.replicates,
            "bootstrap_seed": split.seed,
            "prevalence": math.nan,
            "chance": math.nan,
            "p_value": math.nan,
            "n_positives": None,
            "n_labels": None,
            "excluded": "",
            "excluded_labels": "",
            "note": "",
            "label_group": "",
            "label_source": "",
            "prompts_fingerprint": split.common["prompts_fingerprint"] if protocol == "zero_shot" else "",
            "language": split.common["language"] if protocol == "zero_shot" else "",
        }
    )


def label_columns(split: TestSplit, label: int, counts: ClassCounts) -> dict[str, Any]:
    """The columns that say which label and how many records."""
    concept = split.labels.concepts[label]
    return {
        "label": concept,
        "label_group": split.groups[concept],
        "label_source": split.label_source(concept),
        "n": counts.n,
        "n_positives": counts.n_positives,
        "n_patients": counts.n_patients,
        "prevalence": counts.prevalence,
    }


def macro_columns(
    split: TestSplit,
    group: str,
    kept: Sequence[int],
    counts: Sequence[ClassCounts],
    excluded: Mapping[str, Exclusion],
) -> dict[str, Any]:
    """The columns of a mean over the labels `kept` of a group (`all`: every label), and why others are not in it."""
    concepts = split.labels.concepts
    members = [i for i, concept in enumerate(concepts) if group in ("all", split.groups[concept])]
    known = split.labels.known[:, members].any(axis=1)
    sources = {split.label_source(concepts[i]) for i in members}
    return {
        "label": "macro",
        "label_group": group,
        "label_source": sources.pop() if len(sources) == 1 else "",
        "n": int(known.sum()),
        "n_patients": len(np.unique(split.patient[known])),
        "n_labels": len(kept),
        "prevalence": float(np.mean([counts[i].prevalence for i in kept])) if kept else math.nan,
        "excluded_labels": reasons((concepts[i], str(excluded[concepts[i]])) for i in members if i not in kept),
    }


def estimate_columns(value: float, interval: Interval) -> dict[str, float]:
    """A value with its interval as columns."""
    return {
        "value": float(value),
        "ci_low": interval.low,
        "ci_high": interval.high,
        "discarded_draws": interval.discarded,
    }
