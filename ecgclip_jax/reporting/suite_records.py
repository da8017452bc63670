"""A suite's sections about single ECGs, for open cohorts only: maps of embeddings, and the worst errors as pages."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float

from ecgclip_jax.data.sources import CohortError, CohortSplit, open_cohort
from ecgclip_jax.evaluation.predictions import Predictions
from ecgclip_jax.evaluation.suites.maps import map_file
from ecgclip_jax.reporting.content import FigureContent, Section, pictured
from ecgclip_jax.reporting.figures import embedding_map
from ecgclip_jax.reporting.stored_page import stored_page
from ecgclip_jax.reporting.suite_curves import StoredTests
from ecgclip_jax.reporting.suite_rows import Stratum, SuiteTable, fit_name, main_fit, task_name
from ecgclip_jax.spec.suites import PRETRAINED, TestCohort

GALLERY_TASKS = 2
"""Tasks per source of labels whose worst errors are shown: those with most positives at the internal test."""
_COLOURS = {"label": "by label (the rarest an ECG has)", "test": "by hospital", "device": "by device"}


def map_sections(table: SuiteTable, folder: Path) -> list[Section]:
    """UMAP of the test embeddings of every set of cohorts, by label, hospital and device."""
    figures = []
    for name in table.real_sets:
        if not (path := map_file(folder, name)).is_file():
            continue
        points = pd.read_parquet(path)
        points["label"] = [task_name(key) for key in points["label"]]
        groups = [(title, list(points[column])) for column, title in _COLOURS.items() if points[column].nunique() > 1]
        figure = embedding_map(points[["x", "y"]].to_numpy(np.float32), groups)
        caption = (
            f"{name}: UMAP (cosine, fixed seed) of {len(points):,} test ECGs in the shared space. Islands of one "
            "hospital or device would mean that the encoder reads devices instead of hearts."
        )
        figures.append(pictured(figure, caption, dpi=110))
    return [Section("Maps of embeddings", blocks=figures)] if figures else []


def error_sections(table: SuiteTable, tests: StoredTests, data_dir: Path) -> list[Section]:
    """The most confident errors of the run at the internal tests, a missed positive and a false alarm per task."""
    if not (table.rows["access"] == "open").all():
        return []
    figures = [figure for stratum in table.strata for figure in _worst_of(table, stratum, tests, data_dir)]
    note = (
        "The stored signal, not the model's input. Tasks with most positives: the positive that ranks lowest, and the "
        "negative that ranks highest. A label may be wrong as well as a model."
    )
    return [Section("Most confident errors", [note], blocks=figures)] if figures else []


def _worst_of(table: SuiteTable, stratum: Stratum, tests: StoredTests, data_dir: Path) -> list[FigureContent]:
    found = tests[stratum.cohorts].get(table.internal(stratum))
    protocol, fraction = main_fit(table.of(stratum))
    scores = None if found is None else _mean_scores(found, protocol, fraction)
    places = _Places.of(table.real_sets[stratum.cohorts].internal, data_dir)
    if found is None or scores is None or found.record_ids is None or places is None:
        return []
    labels = found.test.labels
    counts = [
        int((labels.positive & labels.known)[:, i].sum()) if found.test.label_source(name) == stratum.source else 0
        for i, name in enumerate(labels.concepts)
    ]
    chosen = [i for i in np.argsort(counts)[::-1][:GALLERY_TASKS] if counts[i] and not np.isnan(scores[:, i]).all()]
    what = f"{stratum.title}, {fit_name(protocol, fraction)}"
    return [figure for i in chosen for figure in _errors(found, scores[:, i], int(i), places, what)]


def _mean_scores(found: Predictions, protocol: str, fraction: float) -> Float[np.ndarray, "records labels"] | None:
    """Of the run's fits with one fraction of the labels."""
    fits = [s.scores for s in found.scored if (s.protocol, s.arm.name, s.fraction) == (protocol, PRETRAINED, fraction)]
    return np.mean(fits, axis=0) if fits else None


def _errors(
    found: Predictions, scores: Float[np.ndarray, "records"], task: int, places: _Places, what: str
) -> Iterator[FigureContent]:
    """The positive with the lowest score and the negative with the highest."""
    labels = found.test.labels
    known = labels.known[:, task]
    positives, negatives = (np.flatnonzero(own[:, task] & known) for own in (labels.positive, ~labels.positive))
    if found.record_ids is None or not len(positives) or not len(negatives):
        return
    missed, alarm = int(positives[scores[positives].argmin()]), int(negatives[scores[negatives].argmax()])
    above = (float((scores[negatives] > scores[missed]).mean()), float((scores[positives] < scores[alarm]).mean()))
    told = (
        f"missed: {above[0]:.0%} of the ECGs without it score higher",
        f"false alarm: {above[1]:.0%} of the ECGs with it score lower",
    )
    for row, why in zip((missed, alarm), told, strict=True):
        if (place := places.by_id.get(found.record_ids[row])) is not None:
            yield pictured(stored_page(*place), f"{what}. {task_name(labels.concepts[task])}, {why}.", dpi=90)


@dataclass(frozen=True)
class _Places:
    """Where the records of a test lie."""

    by_id: dict[str, tuple[CohortSplit, int]]
    """Split and row of the first window of each id."""

    @classmethod
    def of(cls, test: TestCohort, data_dir: Path) -> _Places | None:
        """None if a cohort of the test is no longer there, or is not open."""
        found: dict[str, tuple[CohortSplit, int]] = {}
        for source in test.sources:
            try:
                opened = open_cohort(data_dir, source)
            except CohortError:
                return None
            if opened.access != "open":
                return None
            for row, record_id in enumerate(opened.table.column("record_id").to_pylist()):
                found.setdefault(record_id, (opened, row))
        return cls(found)
