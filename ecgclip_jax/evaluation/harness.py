"""One evaluation from a model to a results table: open, embed once, fit on training, choose on validation, test.

Test labels are unreachable for selection by construction: probes are fitted by `_fit_probes`, which is given the
training and validation arrays only, before any test split's labels are looked at.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ecgclip_jax.data.labels import Labels, label_matrix, record_concepts
from ecgclip_jax.data.sources import CohortSplit, open_cohort, strictest_access
from ecgclip_jax.evaluation.code_version import code_version
from ecgclip_jax.evaluation.embedding import (
    EcgArrays,
    Model,
    Store,
    array_key,
    array_name,
    embed_split,
    embed_texts,
    split_name,
)
from ecgclip_jax.evaluation.operating import fit_operating_points, operating_rows, save_operating_points
from ecgclip_jax.evaluation.permuted_labels import permuted_labels
from ecgclip_jax.evaluation.predictions import save_predictions
from ecgclip_jax.evaluation.protocols.linear_probe import LinearProbe, ProbeData, fit_probe
from ecgclip_jax.evaluation.protocols.retrieval import ecg_to_text, text_to_ecg
from ecgclip_jax.evaluation.protocols.zero_shot import prompt_matrix, zero_shot_scores
from ecgclip_jax.evaluation.results import Exclusion, ResultRow, Results, suppress_small_cells
from ecgclip_jax.evaluation.retrieval_rows import retrieval_rows
from ecgclip_jax.evaluation.scored import Arm, Scored, TestSplit, Wording
from ecgclip_jax.evaluation.scoring import ranking_rows
from ecgclip_jax.evaluation.selection import Overlapping, choose_rows, require_disjoint
from ecgclip_jax.evaluation.stored_probe import save_probe
from ecgclip_jax.evaluation.tasks import (
    LABEL_SETTING,
    EvaluationError,
    concepts_of,
    label_groups,
    patient_index,
)
from ecgclip_jax.evaluation.training_reports import NO_REPORTS, TrainingReports, read_training_reports
from ecgclip_jax.evaluation.trivial import TRIVIAL_FEATURES, fill_missing, training_medians
from ecgclip_jax.spec.experiment import EvaluationSpec, Source
from ecgclip_jax.text.prompts import PromptSet, load_prompts

PRETRAINED, TRIVIAL = "pre-trained", "trivial features"


@dataclass(frozen=True)
class _Split:
    """An opened split: the chosen rows, their labels and everything frozen about them."""

    opened: CohortSplit
    rows: Int[np.ndarray, "records"]
    table: pa.Table
    labels: Labels
    arrays: Mapping[str, EcgArrays]
    trivial: Float[np.ndarray, "records features"]


@dataclass
class _Run:
    """What is gathered on the way."""

    warnings: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Adds the wall-clock time of a stage."""
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


def evaluate(
    model: Model,
    data_dir: str | Path,
    spec: EvaluationSpec,
    workdir: str | Path,
    *,
    untrained: Mapping[int, Model] | None = None,
    exposure: str | Path | None = None,
    on_overlap: Overlapping = "refuse",
    seed: int = 0,
    show_progress: bool = True,
    with_patient_data: bool = False,
) -> Results:
    """Zero-shot, linear probe and retrieval on every test source, written to `workdir/evaluation`.

    A model that was trained without text has no zero-shot and no retrieval rows.

    Args:
        model: the pre-trained model.
        data_dir: folder of prepared cohorts.
        spec: sources, vocabulary, prompt language, thresholds; usually `model.experiment.evaluation`.
        workdir: run folder.
        untrained: encoders of the same architecture with random weights, by seed; the same protocols run on them.
        exposure: the run's `exposure.parquet`; without it the table says that overlap was not checked.
        on_overlap: what to do if a test record or patient was seen in pre-training.
        seed: of the bootstrap.
        show_progress: a progress bar on the console.
        with_patient_data: above `open` access, also keep per-record arrays and counts below ten.

    Raises:
        EvaluationError: no test source, or overlap with `on_overlap="refuse"`.
        LabelError: no labels in the vocabulary.
        CohortError: a cohort that is not prepared.
    """
    if not spec.test:
        raise EvaluationError("evaluation.test names no source, so there is nothing to evaluate on")
    run = _Run()
    opened = {role: _open(data_dir, getattr(spec, role)) for role in ("train", "validation", "test")}
    require_disjoint(opened)
    access = strictest_access([model.access, *(s.access for part in opened.values() for s in part)])  # type: ignore[list-item]
    folder = Path(workdir) / "evaluation"
    keep = access == "open" or with_patient_data
    store = Store(folder / "embeddings" if keep else None)
    models = {PRETRAINED: model} | {f"untrained seed {s}": m for s, m in (untrained or {}).items()}
    arms = [Arm(PRETRAINED, model.fingerprint)]
    arms += [Arm(f"untrained seed {s}", m.fingerprint, s) for s, m in (untrained or {}).items()]
    rows = {
        role: [choose_rows(s, exposure if role == "test" else None, on_overlap, run.warnings) for s in part]
        for role, part in opened.items()
    }
    if exposure is None:
        run.warnings.append("no exposure table: overlap of the test sets with pre-training was not checked")
    concepts, found = concepts_of(spec.label_vocabulary), _record_concepts(opened, rows, spec)
    reads_text = model.experiment.objective.reads_text
    reports = read_training_reports(model.experiment.data, data_dir) if reads_text else NO_REPORTS
    prompts = load_prompts(spec.prompt_language)
    language_note = reports.language_note(spec.prompt_language)
    run.warnings += _text_notes(model, reports, prompts, language_note)
    splits = _embed_all(opened, rows, found, concepts, models, store, run, show_progress)
    with run.stage("linear probe"):
        probes = _fit_probes(splits["train"], splits["validation"], arms, run)
        points = fit_operating_points([(s.labels, _probe_scores(s, probes, arms)) for s in splits["validation"]])
        save_operating_points(points, folder)
        if PRETRAINED in probes:
            save_probe(folder, probes[PRETRAINED][0], concepts, model.fingerprint)
    with run.stage("zero-shot prompts"):
        vectors = {
            name: prompt_matrix(concepts, prompts.prompts, lambda texts, m=m: np.asarray(m.encode_text(texts)))
            for name, m in models.items()
            if reads_text
        }
    table_rows: list[ResultRow] = []
    for split in splits["test"]:
        test = _test_split(split, spec, reports, prompts, access, seed, run)
        scored = _zero_shot(split, arms, vectors, concepts, prompts, language_note) if reads_text else []
        scored += _probe_scores(split, probes, arms)
        _check_permutation(split, scored, run)
        with run.stage("ranking metrics and bootstrap"):
            table_rows += ranking_rows(test, scored)
            table_rows += operating_rows(test, scored, points)
        with run.stage("retrieval"):
            table_rows += _retrieval(split, test, models, arms, store) if reads_text else []
        save_predictions(folder, split_name(split.opened), split.table, test, scored, keep)
    if not keep:
        table_rows = [suppress_small_cells(row) for row in table_rows]
    return Results(tuple(table_rows), tuple(run.warnings), seconds=run.seconds).save(folder)


def _text_notes(model: Model, reports: TrainingReports, prompts: PromptSet, language_note: str) -> list[str]:
    """What the table must say about the model's way with text."""
    if not model.experiment.objective.reads_text:
        kind = model.experiment.objective.kind
        return [f"no zero-shot and no retrieval: objective {kind!r} trains no text tower"]
    notes = [note for note in (language_note, reports.null_world_note()) if note]
    repeated = reports.wordings_found(prompts.prompts)
    if repeated:
        notes.append(f"{len(repeated)} prompts stand word for word in training reports, first: {repeated[0]!r}")
    return notes


def _open(data_dir: str | Path, sources: tuple[Source, ...]) -> list[CohortSplit]:
    return [open_cohort(data_dir, source) for source in sources]


def _record_concepts(
    opened: Mapping[str, list[CohortSplit]], rows: Mapping[str, list[Int[np.ndarray, "rows"]]], spec: EvaluationSpec
) -> dict[str, list[list[frozenset[str] | None]]]:
    return {
        role: [
            _concepts_in(split.table.take(pa.array(chosen)), spec.label_vocabulary)
            for split, chosen in zip(opened[role], rows[role], strict=True)
        ]
        for role in opened
    }


def _concepts_in(table: pa.Table, vocabulary: str) -> list[frozenset[str] | None]:
    vocabularies, codes = (table.column(name).to_pylist() for name in ("label_vocabulary", "label_codes"))
    return record_concepts(vocabularies, codes, vocabulary, LABEL_SETTING)


def _embed_all(
    opened: Mapping[str, list[CohortSplit]],
    rows: Mapping[str, list[Int[np.ndarray, "rows"]]],
    found: Mapping[str, list[list[frozenset[str] | None]]],
    concepts: tuple[str, ...],
    models: dict[str, Model],
    store: Store,
    run: _Run,
    show_progress: bool,
) -> dict[str, list[_Split]]:
    columns = (TextColumn("embed {task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    splits: dict[str, list[_Split]] = {role: [] for role in opened}
    with run.stage("embedding"), Progress(*columns, disable=not show_progress) as progress:
        for role, part in opened.items():
            for split, chosen, records in zip(part, rows[role], found[role], strict=True):
                if not len(chosen):
                    raise EvaluationError(f"{split.name}: no record is left to evaluate on")
                task = progress.add_task(split.name, total=len(chosen))
                arrays, trivial = embed_split(split, chosen, models, store, lambda n, t=task: progress.advance(t, n))
                labels = label_matrix(records, concepts)
                splits[role].append(_Split(split, chosen, split.table.take(pa.array(chosen)), labels, arrays, trivial))
    return splits


def _fit_probes(
    train: list[_Split], validation: list[_Split], arms: list[Arm], run: _Run
) -> dict[str, tuple[LinearProbe, Float[np.ndarray, "features"] | None]]:
    """A probe per arm; for the trivial features also the medians that fill what is missing. Never sees a test split."""
    if not train or not validation:
        run.warnings.append("no linear probe: evaluation.train and evaluation.validation must both name a source")
        return {}
    probes: dict[str, tuple[LinearProbe, Float[np.ndarray, "features"] | None]] = {}
    for arm in arms:
        probes[arm.name] = fit_probe(_probe_data(train, arm.name), _probe_data(validation, arm.name)), None
    medians = training_medians(np.concatenate([s.trivial for s in train]))
    plain = _probe_data(train, TRIVIAL, medians), _probe_data(validation, TRIVIAL, medians)
    probes[TRIVIAL] = fit_probe(*plain), medians
    for name, (probe, _) in probes.items():
        if probe.inverse_l2 in (min(probe.validation_loss), max(probe.validation_loss)):
            run.warnings.append(
                f"linear probe of {name}: the chosen C = {probe.inverse_l2:g} is at the end of its grid"
            )
    return probes


def _probe_data(splits: list[_Split], arm: str, medians: Float[np.ndarray, "features"] | None = None) -> ProbeData:
    return ProbeData(
        np.concatenate([_features(s, arm, medians) for s in splits]),
        np.concatenate([s.labels.positive for s in splits]),
        np.concatenate([s.labels.known for s in splits]),
    )


def _features(
    split: _Split, arm: str, medians: Float[np.ndarray, "features"] | None
) -> Float[np.ndarray, "records width"]:
    return split.arrays[arm].features if medians is None else fill_missing(split.trivial, medians)


def _zero_shot(
    split: _Split,
    arms: list[Arm],
    vectors: Mapping[str, Float[np.ndarray, "concepts dim"]],
    concepts: tuple[str, ...],
    prompts: PromptSet,
    language_note: str,
) -> list[Scored]:
    without = {c: Exclusion.NO_PROMPT for c in concepts if not prompts.prompts.get(c)}
    notes = dict.fromkeys(concepts, language_note)
    scored = []
    for arm in arms:
        scores = zero_shot_scores(split.arrays[arm.name].embedding, vectors[arm.name])
        wording = Wording(prompts.name, prompts.sha)
        scored.append(Scored(arm, "zero_shot", scores, without, notes, wording=wording))
    return scored


def _probe_scores(
    split: _Split,
    probes: Mapping[str, tuple[LinearProbe, Float[np.ndarray, "features"] | None]],
    arms: list[Arm],
) -> list[Scored]:
    scored = []
    for arm in [*arms, Arm(TRIVIAL, array_key(*TRIVIAL_FEATURES))]:
        if arm.name not in probes:
            continue
        probe, medians = probes[arm.name]
        features = _features(split, arm.name, medians)
        names = split.labels.concepts
        excluded = {c: Exclusion.ONE_CLASS_IN_TRAINING for c, ok in zip(names, probe.fitted, strict=True) if not ok}
        notes = dict.fromkeys(names, f"C = {probe.inverse_l2:g} chosen on validation for all labels")
        for concept, elsewhere in zip(names, probe.chosen_elsewhere, strict=True):
            if elsewhere:
                notes[concept] = (
                    f"one class only in validation: C = {probe.inverse_l2:g} was chosen by the other labels"
                )
        scored.append(Scored(arm, "linear_probe", probe.scores(features), excluded, notes))
    return scored


def _check_permutation(split: _Split, scored: list[Scored], run: _Run) -> None:
    for s in scored:
        if s.arm.name == PRETRAINED and s.protocol == "linear_probe":
            swapped = permuted_labels(split.labels, s.scores)
            if swapped:
                pairs = ", ".join(f"{a} fits {b}" for a, b in sorted(swapped.items()))
                run.warnings.append(
                    f"{split.opened.name}: label columns look permuted between training and test ({pairs})"
                )


def _test_split(
    split: _Split,
    spec: EvaluationSpec,
    reports: TrainingReports,
    prompts: PromptSet,
    access: str,
    seed: int,
    run: _Run,
) -> TestSplit:
    patient, without_id = patient_index(split.table)
    if without_id:
        run.warnings.append(
            f"{split.opened.name}: {without_id} of {len(patient)} records have no patient id; each counts as a patient "
            "of its own, so intervals may be too narrow"
        )
    synthetic = spec.label_vocabulary.startswith("synthetic")
    common = {
        "cohort": split.opened.cohort,
        "version": split.opened.version,
        "split": split.opened.split,
        "language": prompts.language,
        "label_source": "generator truth" if synthetic else f"cohort labels ({spec.label_vocabulary})",
        "data_fingerprint": array_key(split.opened.fingerprint, *split.rows),
        "prompts_fingerprint": prompts.sha,
        "evaluation_fingerprint": array_key(spec.fingerprint(), seed),
        "code_version": code_version(),
        "synthetic": synthetic,
        "access": access,
    }
    groups = label_groups(split.labels.concepts, reports.named)
    return TestSplit(
        split.labels,
        groups,
        patient,
        common,
        spec.min_test_positives,
        spec.macro_min_labels,
        spec.bootstrap_replicates,
        seed,
    )


def _retrieval(
    split: _Split, test: TestSplit, models: Mapping[str, Model], arms: list[Arm], store: Store
) -> list[ResultRow]:
    """Retrieval among the records that have a report; none if fewer than two distinct reports are there."""
    texts = split.table.column("report_clean").to_pylist()
    rows = np.array([i for i, text in enumerate(texts) if text.strip()], np.int64)
    distinct = sorted({texts[i] for i in rows})
    if len(distinct) < 2:
        return []
    number = {text: index for index, text in enumerate(distinct)}
    own_text = np.array([number[texts[i]] for i in rows], np.int64)
    ranks = []
    for arm in arms:
        embedded = embed_texts(models[arm.name], array_name("text", arm.name, split.opened), distinct, store)
        ecg = split.arrays[arm.name].embedding[rows]
        ranks.append(
            (
                arm,
                {
                    "ecg_to_text": ecg_to_text(ecg, embedded, own_text),
                    "text_to_ecg": text_to_ecg(ecg, embedded, own_text),
                },
            )
        )
    _, patient = np.unique(test.patient[rows], return_inverse=True)
    note = f"{len(rows)} ECGs, {len(distinct)} distinct reports; identical reports count as hits; queries are resampled"
    return retrieval_rows(test, ranks, patient, note)
