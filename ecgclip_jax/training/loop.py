"""A training run from start to end: where it begins, the steps, what happens between them, how it ends."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from ecgclip_jax.checkpoints import CHECKPOINT_FOLDER, CheckpointError, Checkpoints, load_meta, saved_steps
from ecgclip_jax.data.index import RunIndex
from ecgclip_jax.data.pipeline import TrainPipeline
from ecgclip_jax.data.targets import target_extras
from ecgclip_jax.models.bert_weights import resolve_bert
from ecgclip_jax.objectives.reference import Metrics
from ecgclip_jax.parallel.agreement import require_same, together
from ecgclip_jax.parallel.host import process_rows
from ecgclip_jax.parallel.last_words import last_words
from ecgclip_jax.parallel.mesh import build_mesh
from ecgclip_jax.spec.experiment import Experiment
from ecgclip_jax.tracking import CompositeTracker, build_tracker
from ecgclip_jax.training.feed import Feed
from ecgclip_jax.training.hooks import FiniteWatch, Hook, RunInterrupted, StopRequest
from ecgclip_jax.training.resident import ResidentCohort
from ecgclip_jax.training.run_folder import RunFolder, open_run_folder, shared_facts
from ecgclip_jax.training.starting import start_state
from ecgclip_jax.training.state import TrainingParts, TrainState, Tree, abstract_state, build_parts
from ecgclip_jax.training.step import TrainStep
from ecgclip_jax.training.text_cache import open_text_cache

logger = logging.getLogger(__name__)

Evaluate = Callable[[int, TrainState], Mapping[str, float]]
"""In-run validation: from the number of updates and the state to named numbers."""


@dataclass(frozen=True)
class RunSummary:
    """How a run ended."""

    workdir: Path
    steps: int
    started_at: int
    """Step this start of the run began at; equal to `steps` if there was nothing left to do."""
    metrics: dict[str, float]
    """Of the last step; empty if there was nothing left to do."""
    seconds: float


def train(
    experiment: Experiment,
    workdir: str | Path,
    data_dir: str | Path,
    *,
    resume: bool = True,
    evaluate: Evaluate | None = None,
) -> RunSummary:
    """Trains `experiment` in `workdir` on prepared cohorts in `data_dir`, from nothing or from where the run stopped.

    All processes of a job call it alike, after `parallel.distributed.start_job`, with folders that all of them share.
    Where a run begins, in this order: a checkpoint of its own folder; else random weights, with those that the
    experiment takes from files or from another run (`start`) put over them. A finished run returns at once.

    Raises:
        UserError: with the reason, for example a folder of another experiment, a damaged checkpoint, a loss that is
            not finite, a stop on SIGTERM or SIGINT after the run was saved, or another process that was lost.
    """
    with last_words(lambda: _lost(Path(workdir), experiment.run.steps)):
        return _train(experiment, Path(workdir), Path(data_dir), resume, evaluate)


def _train(
    experiment: Experiment, workdir: Path, data_dir: Path, resume: bool, evaluate: Evaluate | None
) -> RunSummary:
    began_s = time.monotonic()
    experiment = together(lambda: resolved(experiment))
    require_same(shared_facts(experiment))
    mesh = build_mesh(experiment.mesh)
    process_rows(mesh, experiment.data.batch_global // experiment.memory.micro_batches)
    folder = open_run_folder(experiment, workdir, data_dir, resume=resume)
    parts = build_parts(experiment, folder.facts["vocab_size"])
    checkpoints = Checkpoints(folder.path, experiment.run.keep_checkpoints)
    try:
        start, total = checkpoints.latest or 0, experiment.run.steps
        require_same({"newest checkpoint": start})
        metrics: dict[str, float] = {}
        if start < total:
            state = _first_state(parts, mesh, folder, checkpoints)
            with build_tracker(folder.path, total, start) as tracker:
                run = _Run(parts, mesh, folder, checkpoints, tracker, evaluate, state)
                metrics = run.go(state, start)
    finally:
        checkpoints.close()
    return RunSummary(folder.path, total, start, metrics, time.monotonic() - began_s)


def resolved(experiment: Experiment) -> Experiment:
    """The experiment with its text tower described by the checkpoint's own sizes, so that it can be rebuilt without it.

    Raises:
        WeightsError: see `resolve_bert`.
    """
    if experiment.text_encoder is None:
        return experiment
    return experiment.replace({"text_encoder": resolve_bert(experiment.text_encoder)})


def _lost(workdir: Path, total: int) -> str:
    saved = saved_steps(workdir / CHECKPOINT_FOLDER)
    kept = f"step {saved[-1]} of {total} is saved in {workdir}" if saved else f"nothing is saved in {workdir} yet"
    return (
        f"process {jax.process_index()} of {jax.process_count()} stops because another process of the job was lost: "
        f"it was killed, ran out of memory, failed with an error of its own, or its host cannot be reached; its own "
        f"log says more. {kept}: start all processes again with the same command, and the run goes on from there"
    )


def _first_state(parts: TrainingParts, mesh: Mesh, folder: RunFolder, checkpoints: Checkpoints) -> TrainState:
    step = checkpoints.latest
    if step is None:
        return start_state(parts, mesh)
    wanted = abstract_state(parts, mesh)
    together(lambda: _check_data(folder, step))
    trees = checkpoints.restore(step, saved_trees(wanted), together)
    return TrainState(jax.device_put(jnp.asarray(step, jnp.int32), wanted.step.sharding), **trees)


def _check_data(folder: RunFolder, step: int) -> None:
    saved = load_meta(folder.path, step)
    for name in ("index_fingerprint", "tokenizer_fingerprint"):
        if saved.get(name) != folder.facts[name]:
            raise CheckpointError(
                f"checkpoint {step} of {folder.path} was trained with {name} {saved.get(name)}, the folder now has "
                f"{folder.facts[name]}: its files were changed; restore them, or start a new run folder"
            )


class _Run:
    """One start of a run, from its first state to its end."""

    def __init__(
        self,
        parts: TrainingParts,
        mesh: Mesh,
        folder: RunFolder,
        checkpoints: Checkpoints,
        tracker: CompositeTracker,
        evaluate: Evaluate | None,
        state: TrainState,
    ) -> None:
        self._experiment, self._mesh, self._folder = parts.experiment, mesh, folder
        self._checkpoints, self._tracker, self._evaluate = checkpoints, tracker, evaluate
        self._step = TrainStep(parts, mesh)
        self._pipeline = build_pipeline(self._experiment, folder)
        self._feed = build_feed(parts, mesh, folder, self._pipeline, state)
        self._watch = FiniteWatch(lambda step: batch_records(folder.index, self._pipeline, step), self._last_good)
        self._logged_at: tuple[int, float] | None = None
        self._last: dict[str, float] = {}
        run = self._experiment.run
        validate = [Hook(run.evaluate_every, self._validate)] if evaluate else []
        self._hooks = [Hook(run.log_every, self._log), *validate, Hook(run.checkpoint_every, self._save)]

    def go(self, state: TrainState, start: int) -> dict[str, float]:
        """Trains to the last step; returns its metrics."""
        total = self._experiment.run.steps
        batches = self._feed.batches(start)
        try:
            with StopRequest(self._mesh) as stop:
                for step in range(start + 1, total + 1):
                    state, metrics = self._step(state, next(batches))
                    self._feed.note(metrics["finite"])
                    self._watch.note(step, metrics)
                    if self._logged_at is None:
                        # Throughput counts from here: the first step contains the compilation.
                        self._watch.check()
                        self._logged_at = step, time.monotonic()
                        self._feed.waited_s()
                    due = [hook for hook in self._hooks if hook.due(step, total)]
                    if due:
                        self._watch.check()
                    for hook in due:
                        hook.action(step, state, metrics)
                    if step < total and (reason := stop.reason()):
                        self._stop(step, state, metrics, reason)
        finally:
            batches.close()
        return self._last

    def _stop(self, step: int, state: TrainState, metrics: Metrics, reason: str) -> None:
        self._watch.check()
        if self._last_good() != step:
            self._save(step, state, metrics)
        self._checkpoints.wait()
        raise RunInterrupted(
            f"stopped by {reason} after step {step} of {self._experiment.run.steps}, which is saved in "
            f"{self._folder.path}; the same command goes on from there"
        )

    def _last_good(self) -> int | None:
        """The newest checkpoint, once the save in flight is complete."""
        self._checkpoints.wait()
        return self._checkpoints.latest

    def _log(self, step: int, state: TrainState, metrics: Metrics) -> None:
        values = {name: float(value) for name, value in jax.device_get(metrics).items() if name != "finite"}
        now_s = time.monotonic()
        assert self._logged_at is not None
        since_step, since_s = self._logged_at
        if step > since_step:
            seconds_per_step = (now_s - since_s) / (step - since_step)
            values["ecg_per_s"] = self._experiment.data.batch_global / seconds_per_step
            values["input_share"] = self._feed.waited_s() / (now_s - since_s)
            values["eta_s"] = (self._experiment.run.steps - step) * seconds_per_step
        if self._experiment.memory.packed_rows_per_text is not None:
            values["texts_cut_short"] = self._feed.cut_short()
        values["epoch"] = step / self._pipeline.steps_per_epoch
        self._logged_at, self._last = (step, now_s), values
        self._tracker.log(step, values)

    def _validate(self, step: int, state: TrainState, metrics: Metrics) -> None:
        assert self._evaluate is not None
        self._tracker.log(step, {f"validation/{name}": value for name, value in self._evaluate(step, state).items()})

    def _save(self, step: int, state: TrainState, metrics: Metrics) -> None:
        self._checkpoints.save(step, saved_trees(state), self._folder.facts)


def build_pipeline(experiment: Experiment, folder: RunFolder) -> TrainPipeline:
    """The batches of a run for this process."""
    text = experiment.text_encoder
    return TrainPipeline(
        folder.index,
        None if experiment.caches_text else folder.tokenizer,
        target_extras(experiment.objective, folder.index),
        max_tokens=0 if text is None else text.tokenizer.max_tokens,
        batch_global=experiment.data.batch_global,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        workers=experiment.data.workers,
        prefetch_batches=experiment.data.prefetch_batches,
        micro_batches=experiment.memory.micro_batches,
        resident=experiment.data.input != "host",
    )


def build_feed(parts: TrainingParts, mesh: Mesh, folder: RunFolder, pipeline: TrainPipeline, state: TrainState) -> Feed:
    """The pipeline's batches on the mesh, in the experiment's input mode; fills text cache and devices first.

    Raises:
        TextCacheError, ResidentError: see there.
    """
    experiment = parts.experiment
    data, memory, texts, resident = experiment.data, experiment.memory, None, None
    if experiment.caches_text:
        texts = open_text_cache(parts, mesh, folder, pipeline.texts, state.params["text"])
    if data.input != "host":
        eight = data.input == "resident_8_leads"
        resident = ResidentCohort(mesh, pipeline.order, pipeline.reader, experiment.signal.leads, eight_leads=eight)
    return Feed(pipeline, mesh, memory.micro_batches, texts, resident, memory.packed_rows_per_text)


def batch_records(index: RunIndex, pipeline: TrainPipeline, step: int) -> list[str]:
    """`cohort/record_id` of every record of a global batch; above access class open only the row in the index."""
    rows = pipeline.batch_rows(step).tolist()
    if index.access != "open":
        return [f"index row {row}" for row in rows]
    ids = index.column("record_id")
    return [f"{index.cohorts[index.source[row]].cohort}/{ids[row]}" for row in rows]


def saved_trees(state: TrainState) -> dict[str, Tree]:
    """The parts of a state as a checkpoint names them; the step is the checkpoint's own number."""
    trees = {"params": state.params, "batch_stats": state.batch_stats, "opt_state": state.opt_state}
    return trees | ({"target": state.target, "target_stats": state.target_stats} if state.target else {})
