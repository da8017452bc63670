"""Local thresholds and temperature: refitted from the stored probe, counted, never written over another file."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from evaluation_world import CONCEPTS, FakeModel, make_experiment, make_split
from scipy.stats import binomtest
from sklearn.metrics import roc_curve

from ecgclip_jax import inference
from ecgclip_jax.cli.main import main
from ecgclip_jax.evaluation import recalibrate as module
from ecgclip_jax.evaluation.protocols.linear_probe import LinearProbe
from ecgclip_jax.evaluation.protocols.logistic import Rotation
from ecgclip_jax.evaluation.recalibrate import LocalTask, Recalibrated, needed, recalibrate, wilson_half_width
from ecgclip_jax.evaluation.stored_probe import load_probe, save_probe
from ecgclip_jax.evaluation.tasks import EvaluationError
from ecgclip_jax.spec.experiment import Source

MODEL = FakeModel(make_experiment())
LOCAL = Source(cohort="fake", split="local")
SCALE = 4.0
"""Logits are so many times the amplitude less 0.5."""


def stored(run: Path) -> Path:
    """A run whose probe reads each concept straight off the fake encoder; the last one could not be fitted."""
    mixing = np.random.default_rng(0).normal(size=(len(CONCEPTS), 10)).astype(np.float32)
    rotation = Rotation(np.zeros(10), np.linalg.pinv(mixing), np.ones(len(CONCEPTS)))
    size = len(CONCEPTS)
    fitted = np.arange(size) < size - 1
    weight, bias = SCALE * np.eye(size, dtype=np.float32), np.full(size, -SCALE / 2, np.float32)
    probe = LinearProbe(rotation, weight, bias, fitted, 1.0, {}, ~fitted, 1)
    save_probe(run / "evaluation", probe, CONCEPTS, MODEL.fingerprint)
    return run


@pytest.fixture
def local(monkeypatch: pytest.MonkeyPatch):
    """The local split that any cohort name opens; `codes` renames its label codes."""

    def use(**facts: object):
        split = replace(make_split("local", 5, 80, **facts), cohort="fake")
        monkeypatch.setattr(module, "open_cohort", lambda data_dir, source: split)
        return split

    return use


def run_it(run: Path, **options: object) -> Recalibrated:
    return recalibrate(MODEL, run, run, LOCAL, **options)


def test_thresholds_and_temperature_are_those_of_the_local_records(tmp_path: Path, local) -> None:
    split = local()
    found = run_it(stored(tmp_path))
    truth = np.array([CONCEPTS[0] in codes for codes in split.table.column("label_codes").to_pylist()])
    logits = MODEL.encode_ecg(split.read_ecg(list(range(len(truth))))).embedding[:, 0] + 0.35
    logits = SCALE * logits.astype(np.float64) - SCALE / 2
    false_positive, true_positive, thresholds = roc_curve(truth, logits, drop_intermediate=False)
    task = found.tasks[0]
    assert task.threshold == pytest.approx(thresholds[np.argmax(true_positive - false_positive)], abs=1e-4)
    assert task.sensitivity + task.specificity - 1 == pytest.approx((true_positive - false_positive).max(), abs=1e-9)
    assert task.n_positives == truth.sum()
    assert found.tasks[-1].reason == "the probe could not be fitted to it"
    content = json.loads(found.path.read_text())
    assert found.path.name == "operating_points-fake.json"
    assert content["models"]["pre-trained"]["temperature"] == found.points.temperature
    assert content["models"]["pre-trained"]["thresholds"][CONCEPTS[0]] == task.threshold
    assert content["tasks"][-1]["threshold"] is None


def test_the_rule_is_the_users(tmp_path: Path, local) -> None:
    local()
    found = run_it(stored(tmp_path), rule="specificity", target=0.95)
    assert all(t.specificity >= 0.95 for t in found.tasks[:-1])
    content = json.loads(found.path.read_text())
    assert (content["rule"], content["target"]) == ("specificity", 0.95)


def test_needed_is_the_first_number_whose_wilson_interval_is_narrow_enough() -> None:
    for hits, n in ((5, 10), (27, 30), (40, 40)):
        interval = binomtest(hits, n).proportion_ci(0.95, "wilson")
        half = (interval.high - interval.low) / 2
        assert wilson_half_width(hits / n, n) == pytest.approx(half, abs=1e-12)
    for share in (0.5, 0.9, 1.0):
        n = needed(share, 0.1)
        assert wilson_half_width(share, n) <= 0.1 < wilson_half_width(share, n - 1)
    assert needed(0.5, 0.05) > 3.5 * needed(0.5, 0.1)


def test_patients_are_counted_and_too_few_are_told(tmp_path: Path, local) -> None:
    split = local()
    found = run_it(stored(tmp_path), half_width=0.05)
    truth = np.array([CONCEPTS[0] in codes for codes in split.table.column("label_codes").to_pylist()])
    patients = np.array(split.table.column("patient_id").to_pylist())
    task = found.tasks[0]
    assert task.n_patients_positive == len(set(patients[truth])) < truth.sum()
    assert task.needed_positives is not None
    assert task.enough == (task.n_patients_positive >= task.needed_positives)
    assert not task.enough
    share = len(set(patients[truth])) / len(set(patients))
    assert task.needed_ecgs is not None
    assert task.needed_ecgs >= math.floor(task.needed_positives / share)
    (tmp_path / "wide").mkdir()
    assert run_it(stored(tmp_path / "wide"), half_width=0.3).tasks[0].enough


def test_nothing_is_overwritten_and_no_other_models_probe_is_used(tmp_path: Path, local) -> None:
    local()
    with pytest.raises(EvaluationError, match="run `ecgclip evaluate` first"):
        run_it(tmp_path)
    path = run_it(stored(tmp_path)).path
    before = path.read_bytes()
    with pytest.raises(EvaluationError, match="never overwritten"):
        run_it(tmp_path)
    assert path.read_bytes() == before
    with pytest.raises(EvaluationError, match=r"was fitted on model fake-1\.0-0"):
        load_probe(tmp_path / "evaluation", "another")
    (tmp_path / "evaluation" / "probe.npz").write_bytes(b"no archive")
    with pytest.raises(EvaluationError, match="is damaged"):
        load_probe(tmp_path / "evaluation", MODEL.fingerprint)


def test_above_open_access_small_cells_are_not_told(tmp_path: Path, local) -> None:
    rare = np.random.default_rng(0).random((200, len(CONCEPTS))) < 0.3
    rare[:, 1] = np.arange(200) < 4
    local(access="credentialed", labels=rare)
    found = run_it(stored(tmp_path))
    assert found.tasks[1] == LocalTask(CONCEPTS[1], None, None, None, reason="small_cell_suppressed")
    assert CONCEPTS[1] not in found.points.thresholds
    assert CONCEPTS[0] in found.points.thresholds
    (tmp_path / "told").mkdir()
    assert run_it(stored(tmp_path / "told"), with_patient_data=True).tasks[1].n_positives == 4


def test_the_command_says_what_is_missing(
    tmp_path: Path, local, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    local()
    monkeypatch.setattr(inference, "load_model", lambda run, step: MODEL)
    monkeypatch.setenv("COLUMNS", "200")
    words = ["calibrate", str(stored(tmp_path)), "--data-dir", str(tmp_path)]
    assert main([*words, "--data", "fake"]) == 2
    assert "--data takes COHORT/SPLIT" in capsys.readouterr().err
    assert main([*words, "--data", "fake/local", "--half-width", "0.05"]) == 0
    said = capsys.readouterr().out
    assert "0 of 7 tasks have enough patients" in said
    assert "no exposure table" in said
    assert "operating_points-fake.json" in said.replace("\n", "")
