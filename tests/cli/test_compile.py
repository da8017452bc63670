"""`ecgclip compile` as a person uses it: one tiny step on eight CPU devices, and one sentence for every mistake."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from support.tiny_evaluation import write_experiment

from ecgclip_jax.cli import compile as compile_command
from ecgclip_jax.cli.main import main
from ecgclip_jax.parallel import targets
from ecgclip_jax.parallel.targets import DescribedDevices
from ecgclip_jax.spec.experiment import Experiment
from ecgclip_jax.training import program
from ecgclip_jax.training.program import CompiledStep


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_experiment(tmp_path_factory.mktemp("compile") / "tiny.py")


@dataclass
class Answer:
    said: str
    """Without line breaks."""
    facts: dict[str, Any]
    program: str


def ask(experiment: Path, *words: str) -> Answer:
    hlo, facts = experiment.with_suffix(".hlo"), experiment.with_suffix(".json")
    with redirect_stdout(io.StringIO()) as said:
        assert main(["compile", str(experiment), "--hlo", str(hlo), "--json", str(facts), *words]) == 0
    return Answer(" ".join(said.getvalue().split()), json.loads(facts.read_text()), hlo.read_text())


@dataclass
class CompiledOnce:
    answer: Answer
    step: CompiledStep


@pytest.fixture(scope="module")
def compiled(experiment: Path) -> CompiledOnce:
    """The command's answer for eight CPU devices, and the step that it compiled."""
    steps: list[CompiledStep] = []
    real = program.compile_step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(program, "compile_step", lambda *args: steps.append(real(*args)) or steps[-1])
        answer = ask(experiment, "--target", "cpu:8", "--mesh", "data=4,fsdp=2")
    return CompiledOnce(answer, steps[0])


def test_a_step_for_eight_cpu_devices(compiled: CompiledOnce) -> None:
    answer = compiled.answer
    facts = answer.facts
    assert facts["mesh"] == {"data": 4, "fsdp": 2}
    assert (facts["batch_global"], facts["batch_per_device"], facts["vocab_size"]) == (16, 2, 64)
    memory = facts["memory"]
    parts = ("parameters", "optimizer", "statistics", "batch", "temporary")
    assert all(memory[part] > 0 for part in parts)
    assert memory["needed"] >= sum(memory[part] for part in parts)
    assert memory["batch"] == 2 * (5000 * 12 * 2 + 4 + 4 + 4 + 8 * (4 + 1) + 1 + 4 + 1)
    assert memory["fits"] is None
    assert facts["roofline"] is None, "a CPU's peaks are no facts"
    assert {"convolution", "matrix product"} <= set(facts["bytes"])
    assert sum(facts["flops"].values()) > 0
    assert "collective-permute" in {row["kind"] for row in facts["collectives"]}, "the loss travels round the mesh"
    assert answer.program.startswith("HloModule")
    for heading in ("Memory", "Bytes moved per device and step", "Collectives", "Largest arrays written"):
        assert heading in answer.said


def test_a_target_without_its_compiler_is_stood_in_for(
    experiment: Path, compiled: CompiledOnce, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step compiled above, as the one that CPU devices give in place of eight H200."""
    monkeypatch.setattr(targets, "compiler_installed", lambda target: False)
    monkeypatch.setattr(program, "compile_step", lambda _, described, __: replace(compiled.step, described=described))
    answer = ask(experiment, "--target", "h200:8", "--mesh", "fsdp=2")
    assert answer.facts["stand_in"]
    assert answer.facts["compiler"] == "XLA:CPU"
    assert answer.facts["memory"]["fits"] is None
    assert "8 CPU devices stand in" in answer.said
    assert "pip install -e '.[cuda]'" in answer.said


def test_a_step_that_does_not_fit_ends_with_what_would_help(
    experiment: Path, compiled: CompiledOnce, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step above as one that needs 400 GiB of activations on each of eight H200."""
    needed = replace(compiled.step.memory, temporary=400 * 2**30, needed=401 * 2**30)
    monkeypatch.setattr(targets, "compiler_installed", lambda target: False)

    def on_cards(_: Experiment, described: DescribedDevices, __: int) -> CompiledStep:
        return replace(compiled.step, described=replace(described, stand_in=False), memory=needed)

    monkeypatch.setattr(program, "compile_step", on_cards)
    assert main(["compile", str(experiment), "--target", "h200:8", "--mesh", "fsdp=2"]) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "does not fit: 261.30 GiB too much per device" in said
    assert "--memory.ecg-remat blocks" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--target", "b200"], "no target is called 'b200'"),
        (["--target", "cpu:8", "--mesh", "model=2"], "the mesh has no axis 'model'; it has data, fsdp"),
        (["--target", "cpu:8", "--mesh", "data=x"], "axis data needs a number of devices"),
        (["--target", "cpu:8", "--mesh", "data=3"], "data.batch_global 16 must divide by the mesh's 3 x 1 devices"),
        (["--target", "cpu:8", "--mesh", "data=2"], "needs 2 devices, found 8"),
        (["--target", "cpu:3"], "data.batch_global 16 must divide by the 3 devices of the mesh"),
        (["--target", "cpu:1000"], "1000 CPU devices were asked for"),
        (["--target", "cpu", "--hlo", "no/such/folder/x.hlo"], "no folder"),
        (["--target", "cpu", "--data.batch-globl", "8"], "batch-globl"),
    ],
)
def test_a_mistake_is_one_sentence(
    experiment: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert main(["compile", str(experiment), *words]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error


def test_a_mesh_is_two_overrides() -> None:
    assert compile_command.mesh_overrides("data=64,fsdp=4") == ["--mesh.data", "64", "--mesh.fsdp", "4"]
    assert compile_command.mesh_overrides("fsdp=4") == ["--mesh.data", "-1", "--mesh.fsdp", "4"]
    assert compile_command.mesh_overrides(None) == []
