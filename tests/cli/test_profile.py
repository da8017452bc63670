"""`ecgclip profile` as a person uses it: two steps of a tiny experiment on one CPU device, and its mistakes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.tiny_cohort import write_cohort
from support.tiny_evaluation import LABELS, labelled_record, write_experiment
from support.tiny_training import one_device_mesh, tiny_experiment

from ecgclip_jax.cli.main import main
from ecgclip_jax.spec.experiment import OptimizerSpec
from ecgclip_jax.spec.objectives import SupervisedSpec
from ecgclip_jax.training import profiling, program


def write_small(path: Path) -> Path:
    """The tiny experiment without a text tower: a program that is read in a second."""
    experiment = tiny_experiment(
        text_encoder=None, objective=SupervisedSpec(labels=LABELS), optimizer=OptimizerSpec(schedule="constant")
    )
    path.write_text(
        "from ecgclip_jax.spec.experiment import Experiment\n\n"
        f"TEXT = r'''{experiment.model_dump_json()}'''\n\n\n"
        "def variants():\n    return {'tiny': Experiment.model_validate_json(TEXT)}\n"
    )
    return path


def test_a_few_steps_as_tables_figures_and_a_trace(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (profiling, program):
        monkeypatch.setattr(module, "build_mesh", lambda spec, devices=None: one_device_mesh(spec))
    file, folder, steps = write_small(tmp_path / "tiny.py"), tmp_path / "profile", 2
    write_cohort(tmp_path / "data", {"train": [labelled_record(n) for n in range(48)]})
    words = ["--folder", str(folder), "--data-dir", str(tmp_path / "data"), "--steps", str(steps)]
    assert main(["profile", str(file), *words]) == 0
    said = " ".join(capsys.readouterr().out.split())
    for heading in ("Time by layer kind", "Largest arrays written", "Memory", "input-bound share", "trace:"):
        assert heading in said
    assert "roofline fraction: none, the peaks of a cpu are no known facts" in said
    facts: dict[str, Any] = json.loads((folder / "profile.json").read_text())
    assert facts["steps"] == steps
    assert 0 < facts["step_s"] * facts["ecg_per_s"] == pytest.approx(16)
    assert 0 <= facts["input_share"] <= 1
    kinds = {(kind["part"], kind["kind"]): kind for kind in facts["kinds"]}
    tower = kinds["ECG tower", "convolution"]
    assert tower["forward_s"] > 0
    assert tower["backward_s"] > 0
    assert {"preprocessing", "ECG tower", "optimizer", "heads, loss, rest"} == {part for part, _ in kinds}
    assert list((folder / "trace").glob("plugins/profile/*/*.xplane.pb"))
    assert (folder / "program.hlo").read_text().startswith("HloModule")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--steps", "0"], "at least one step must run"),
        (["--data.batch-globl", "8"], "batch-globl"),
        (["--mesh.data", "3"], "16 must divide by the mesh's 3 x 1 devices"),
    ],
)
def test_a_mistake_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert main(["profile", str(write_experiment(tmp_path / "tiny.py")), "--folder", str(tmp_path), *words]) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert said in error
    assert "Traceback" not in error
