"""The sections about a run: what was trained on what, and how training went."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from ecgclip_jax.inference import Model
from ecgclip_jax.models.functional import parameter_count
from ecgclip_jax.reporting.content import Section, TableContent, drawn
from ecgclip_jax.reporting.figures import training_curves
from ecgclip_jax.tracking import METRICS_FILE
from ecgclip_jax.training.run_folder import EXPERIMENT_FILE


def run_section(workdir: Path, model: Model) -> Section:
    """Experiment, data, input, towers, versions."""
    facts = json.loads((workdir / EXPERIMENT_FILE).read_text(encoding="utf-8"))
    experiment, params = model.experiment, model.params
    counts = {name: parameter_count(part) for name, part in params.items()}
    rows = [
        ("experiment", f"{experiment.name}: {experiment.summary}"),
        ("fingerprints", f"experiment {experiment.fingerprint()}, model {model.fingerprint}"),
        ("checkpoint", f"step {model.step} of {experiment.run.steps}, batch {experiment.data.batch_global}"),
        ("input", _input_line(model)),
        ("ECG tower", f"{experiment.ecg_encoder.kind}-{experiment.ecg_encoder.depth}, {counts['ecg']:,} parameters"),
        ("text tower", _text_line(model, counts)),
        ("objective", f"{experiment.objective.kind}, {counts['objective']:,} parameters"),
        ("trained on", f"{facts.get('n_devices')} × {facts.get('device_kind')} ({facts.get('platform')})"),
        ("access and licences", f"{facts.get('access')}; {', '.join(facts.get('licences', []))}"),
        ("code", f"commit {facts.get('git_commit')}, {_versions(facts.get('versions', {}))}"),
    ]
    return Section(
        "Run",
        facts=rows,
        blocks=[_exposure_table(workdir)],
        details=[("the resolved experiment", experiment.model_dump_json(indent=1))],
    )


def _text_line(model: Model, counts: dict[str, int]) -> str:
    spec = model.experiment.text_encoder
    return f"{spec.kind}, {counts['text']:,} parameters" if spec else "none: this objective reads no text"


def _input_line(model: Model) -> str:
    spec = model.experiment.signal
    band = f"{spec.bandpass.low_hz:g}–{spec.bandpass.high_hz:g} Hz" if spec.bandpass else "no band-pass"
    notch = ", mains notch" if spec.notch else ""
    view = model.experiment.view
    leads = f"lead {view.inference_lead} (trained on any)" if view.single_lead else f"{len(spec.leads)} leads"
    return (
        f"{spec.name}: {leads}, {spec.rate_hz:g} Hz, {spec.samples} samples, {band}{notch}, "
        f"{spec.unit}, normalisation {spec.normalisation}"
    )


def _versions(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _exposure_table(workdir: Path) -> TableContent:
    seen = pq.read_table(workdir / "exposure.parquet").to_pandas()
    groups = seen.groupby(["cohort", "version", "split"], sort=True)
    rows = [
        [str(cohort), str(version), str(split), f"{len(part):,}", f"{part['patient_id'].nunique():,}"]
        for (cohort, version, split), part in groups
    ]
    return TableContent(
        ["cohort", "version", "split", "ECGs", "patients"], rows, title="Seen in pre-training", numeric=(3, 4)
    )


def training_section(workdir: Path) -> Section:
    """Curves of the logged steps."""
    lines = (workdir / METRICS_FILE).read_text(encoding="utf-8").splitlines()
    history = pd.DataFrame([json.loads(line) for line in lines])
    return Section("Training", blocks=[drawn(training_curves(history), "Logged steps of the run.")])
