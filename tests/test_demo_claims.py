"""The small form of `make proofs demo_claims`: what few synthetic ECGs teach vanishes with shuffled reports."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console
from support.tiny_training import train_on_one_device

from ecgclip_jax.cli.evaluate import EvaluateArguments, evaluate_run
from ecgclip_jax.cli.prepare import prepare
from ecgclip_jax.evaluation.results import ResultRow
from ecgclip_jax.spec.files import load_experiment

DEMO = Path(__file__).resolve().parents[1] / "experiments" / "demo.py"
SMALLER = {
    "run.steps": 80,
    "run.log_every": 50,
    "run.checkpoint_every": 80,
    "data.batch_global": 32,
    "signal.samples": 512,
    "signal.rate_hz": 50.0,
    "signal.bandpass.high_hz": 20.0,
    "signal.notch": None,
    "ecg_encoder.depth": 10,
    "ecg_encoder.width": 8,
    "text_encoder.hidden": 64,
    "text_encoder.intermediate": 64,
    "evaluation.bootstrap_replicates": 100,
    "evaluation.untrained_baseline": False,
    "evaluation.train": (),
    "evaluation.test": ({"cohort": "synthetic_ecg", "split": "external"},),
}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    assert prepare("synthetic_ecg", data_dir=folder, size=800, workers=0, console=Console(quiet=True)) == 0
    return folder


def zero_shot(variant: str, data_dir: Path, workdir: Path, monkeypatch: pytest.MonkeyPatch) -> ResultRow:
    """Macro AUROC over all concepts at hospital C, prompts worded as no report is."""
    experiment = load_experiment(DEMO, variant).replace(SMALLER)
    train_on_one_device(experiment, workdir, data_dir)
    monkeypatch.setattr("ecgclip_jax.reporting.page.write_report", lambda *_: workdir / "report.html")
    results = evaluate_run(EvaluateArguments(run=workdir, data_dir=data_dir), Console(quiet=True))
    (row,) = results.find(protocol="zero_shot", label="macro", label_group="all", metric="auroc", model="pre-trained")
    return row


def test_what_was_learned_vanishes_with_shuffled_reports(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned = zero_shot("base", data_dir, tmp_path / "base", monkeypatch)
    null = zero_shot("shuffled_reports", data_dir, tmp_path / "null", monkeypatch)
    assert learned.synthetic
    assert null.synthetic
    assert learned.ci_low > 0.53
    assert abs(null.value - 0.5) < 0.06
    assert learned.ci_low > null.ci_high
