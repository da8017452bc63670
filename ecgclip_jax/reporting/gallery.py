"""The sections about single ECGs, for open cohorts only: a map of embeddings, and pages with their prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float

from ecgclip_jax.data.sources import CohortSplit, open_cohort
from ecgclip_jax.evaluation.embedding_map import rarest_label, shown_on_a_map, umap_points
from ecgclip_jax.evaluation.results import Results
from ecgclip_jax.reporting.content import FigureContent, Section, pictured
from ecgclip_jax.reporting.figures import embedding_map
from ecgclip_jax.reporting.result_sections import concept_name
from ecgclip_jax.reporting.stored_page import stored_page
from ecgclip_jax.spec.experiment import Source
from ecgclip_jax.text.prompts import load_prompts

MAP_POINTS = 2500
"""More cannot be told apart, and UMAP takes seconds for them."""
PAGES = 4
_SCORE = "score/pre-trained/zero_shot/"


@dataclass(frozen=True)
class OpenSplit:
    """A test split whose single records may be shown: its predictions, embeddings and stored ECGs, row by row."""

    name: str
    predictions: pd.DataFrame
    embedding: Float[np.ndarray, "records dim"]
    opened: CohortSplit

    @cached_property
    def records(self) -> pd.DataFrame:
        """Table of the records, by the first window of each id."""
        table = self.opened.table.to_pandas()
        table["row"] = np.arange(len(table))
        by_id = table.drop_duplicates("record_id").set_index("record_id")
        ordered: pd.DataFrame = by_id.reindex(self.predictions["record_id"])
        return ordered


def open_splits(results: Results, folder: Path, data_dir: Path) -> list[OpenSplit]:
    """The test splits with access class `open` for which per-record arrays were kept."""
    found = []
    for cohort, version, split, access in dict.fromkeys((r.cohort, r.version, r.split, r.access) for r in results.rows):
        name = f"{cohort}-{version}-{split}"
        arrays = folder / "embeddings" / f"ecg-pre-trained-{name}.npz"
        if access != "open" or not arrays.is_file():
            continue
        predictions = pd.read_parquet(folder / f"predictions-{name}.parquet")
        with np.load(arrays) as kept:
            embedding = kept["embedding"]
        opened = open_cohort(data_dir, Source(cohort=cohort, version=version, split=split))
        found.append(OpenSplit(name, predictions, embedding, opened))
    return found


def map_section(splits: Sequence[OpenSplit]) -> Section:
    """UMAP of the test embeddings by label and by hospital."""
    embedding = np.concatenate([s.embedding for s in splits])
    labels = [label for s in splits for label in _rarest_label(s.predictions)]
    sites = [f"{s.opened.split}: {site or 'unknown'}" for s in splits for site in s.records["site"]]
    chosen = shown_on_a_map(len(embedding), MAP_POINTS)
    points = umap_points(embedding[chosen])
    figure = embedding_map(
        points,
        [
            ("by label (the rarest an ECG has)", [labels[i] for i in chosen]),
            ("by hospital", [sites[i] for i in chosen]),
        ],
    )
    caption = (
        f"UMAP (cosine, fixed seed) of {len(chosen):,} test ECGs in the shared space. Hospitals that form islands of "
        "their own would mean that the encoder reads devices instead of hearts."
    )
    return Section("Map of embeddings", blocks=[pictured(figure, caption, dpi=110)])


def _rarest_label(predictions: pd.DataFrame) -> list[str]:
    columns = [str(c) for c in predictions if str(c).startswith("label/")]
    names = [concept_name(column.removeprefix("label/")) for column in columns]
    return rarest_label(predictions[columns].to_numpy(bool), names)


def pages_section(splits: Sequence[OpenSplit], language: str) -> Section:
    """A few ECG pages of the last split with the prompts that lie nearest to them and farthest from them."""
    figures = [figure for split in splits[-1:] for figure in _pages(split, language)]
    note = (
        "The stored signal, not the model's input. Of the concepts with most positives: the positive ECG with the "
        "highest and the one with the lowest similarity. A similarity is a cosine, no probability."
    )
    return Section("ECGs and their prompts", [note], blocks=figures)


def _pages(split: OpenSplit, language: str) -> list[FigureContent]:
    scores = split.predictions.filter(like=_SCORE)
    scores.columns = [str(c).removeprefix(_SCORE) for c in scores.columns]
    prompts = load_prompts(language).prompts
    counts = {k: int(split.predictions[f"label/{k}"].sum()) for k in scores.columns}
    frequent = sorted((k for k in counts if k not in ("sinus_rhythm", "normal_ecg")), key=lambda k: -counts[k])
    figures = []
    for number, concept in enumerate([k for k in frequent if counts[k] > 0][:PAGES]):
        positives = np.flatnonzero(split.predictions[f"label/{concept}"].to_numpy(bool))
        ranked = positives[np.argsort(scores[concept].to_numpy()[positives], kind="stable")]
        chosen = int(ranked[-1] if number % 2 == 0 else ranked[0])
        figures.append(_page(split, chosen, concept, "highest" if number % 2 == 0 else "lowest", scores, prompts))
    return figures


def _page(
    split: OpenSplit,
    index: int,
    concept: str,
    which: str,
    scores: pd.DataFrame,
    prompts: Mapping[str, tuple[str, ...]],
) -> FigureContent:
    record = split.records.iloc[index]
    ranked = scores.iloc[index].sort_values(ascending=False)
    worded = [k for k in ranked.index if prompts.get(k)]
    figure = stored_page(split.opened, int(record["row"]))
    nearest, farthest = (
        "; ".join(f"“{prompts[k][0]}” {ranked[k]:+.2f}" for k in some) for some in (worded[:3], worded[-3:])
    )
    caption = f"{which} similarity to {concept_name(concept)}. Nearest prompts: {nearest}. Farthest: {farthest}."
    return pictured(figure, caption, dpi=90)
