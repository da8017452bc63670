"""What the reports of pre-training say about an evaluation: their languages, and which concepts they ever name."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from ecgclip_jax.data.index import select_records
from ecgclip_jax.data.sources import CohortError, open_cohort
from ecgclip_jax.data.texts import Reports
from ecgclip_jax.spec.experiment import DataSpec
from ecgclip_jax.text.concepts import CONCEPTS
from ecgclip_jax.text.report_writer import report_phrases

ABSENT_BELOW = 0.01
"""A language of a smaller share of reports counts as absent."""


@dataclass(frozen=True)
class TrainingReports:
    """Facts of the reports a model was trained on; `text` is empty if they are not at hand."""

    text: str
    """The distinct reports, lower case, one per line."""
    languages: Mapping[str, float]
    """Share of reports per language."""
    named: frozenset[str] | None
    """Concepts that some report names; None where that cannot be told."""
    null_world: str

    def language_note(self, language: str) -> str:
        """What the table must say about prompts in `language`; empty if nothing."""
        if not self.languages:
            return "the training reports are not at hand: whether they hold the prompts' language is unknown"
        if self.languages.get(language, 0.0) >= ABSENT_BELOW:
            return ""
        shares = ", ".join(f"{name} {share:.0%}" for name, share in sorted(self.languages.items()))
        return f"prompt language '{language}' is absent from the training reports ({shares})"

    def null_world_note(self) -> str:
        """Says so if the model was trained in a null world."""
        return "" if self.null_world == "none" else f"null world: the model was trained on {self.null_world}"

    def wordings_found(self, prompts: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
        """Prompts whose wording stands in a training report: they test memory, not understanding."""
        return tuple(p for wordings in prompts.values() for p in wordings if p.lower() in self.text)


NO_REPORTS = TrainingReports("", {}, None, "none")
"""Of a model that was trained without text, or whose reports are not at hand."""


def read_training_reports(data: DataSpec, data_dir: str | Path) -> TrainingReports:
    """Reads the reports that the run's data specification selects, if its cohorts are prepared here."""
    try:
        splits = [open_cohort(data_dir, source) for source in data.sources]
    except CohortError:
        return TrainingReports("", {}, None, data.null_world)
    tables = [s.table.take(pa.array(np.asarray(select_records(s.table, data)[0]))) for s in splits]
    reports = [text for t in tables for text in Reports.of_table(t).texts(data)]
    languages = Counter(name for t in tables for name in t.column("report_language").to_pylist())
    text = "\n".join(sorted(set(reports))).lower()
    synthetic = all(v.startswith("synthetic") for t in tables for v in t.column("label_vocabulary").to_pylist())
    shares = {name: count / len(reports) for name, count in languages.items()}
    return TrainingReports(text, shares, named_concepts(text) if synthetic else None, data.null_world)


def named_concepts(text: str) -> frozenset[str]:
    """Concepts that a synthetic report names by one of the phrases its writer has; descriptions of waves name nothing.

    A wide concept is named if one of those it gathers is. Only synthetic reports can be searched like this: what a real
    report names is not known by list.
    """
    named = set()
    for finding, styles in report_phrases().items():
        phrases = [p for style, wordings in styles.items() if style != "features" for p in wordings]
        pattern = "|".join(rf"(?<!\w){re.escape(p.lower())}(?!\w)" for p in phrases)
        if phrases and re.search(pattern, text):
            named.add(finding)
    return frozenset(key for key, concept in CONCEPTS.items() if named & set(concept.codes["synthetic"]))
