"""A test split of a suite as the scoring takes it."""

from __future__ import annotations

from typing import Any

from ecgclip_jax.evaluation.code_version import code_version
from ecgclip_jax.evaluation.embedding import array_key
from ecgclip_jax.evaluation.registry import registry_fingerprint
from ecgclip_jax.evaluation.scored import TestSplit
from ecgclip_jax.evaluation.suites.opening import SuiteSplit
from ecgclip_jax.spec.suites import SuiteSpec
from ecgclip_jax.text.prompts import load_prompts

BOOTSTRAP_SEED = 0


def test_split(spec: SuiteSpec, split: SuiteSplit, access: str) -> TestSplit:
    """Labels grouped by where they come from, weighted back to the source where the sample is case-enriched."""
    sources = {task: split.label_source.get(task, "none") for task in split.labels.concepts}
    return TestSplit(
        labels=split.labels,
        groups=sources,
        patient=split.patient,
        common=_common(spec, split, access),
        min_positives=spec.min_test_positives,
        macro_min_labels=spec.macro_min_labels,
        replicates=spec.bootstrap_replicates,
        seed=BOOTSTRAP_SEED,
        sampling=split.weight if split.weighted else None,
        label_sources=sources,
    )


def _common(spec: SuiteSpec, split: SuiteSplit, access: str) -> dict[str, Any]:
    first = split.parts[0].opened
    prompts = load_prompts(spec.prompt_language, spec.prompt_sets[0])
    return {
        "cohort": first.cohort,
        "version": first.version,
        "split": split.name,
        "language": prompts.language,
        "label_source": "",
        "data_fingerprint": split.labels_key,
        "prompts_fingerprint": prompts.sha,
        "evaluation_fingerprint": array_key(spec.fingerprint(), registry_fingerprint(), BOOTSTRAP_SEED),
        "code_version": code_version(),
        "synthetic": split.availability == "synthetic",
        "availability": split.availability,
        "access": access,
    }
