"""The training step's memory: embedding cache and rematerialisation against the single pass, fsdp against data.

The experiment is MERL in small (`experiments/merl.py`, variant demo). Memory is the compiled program's temporary bytes
on one device; collectives and what each device holds are read from the program for eight devices with a larger text
tower. Both need no run. Times are of whole steps at one batch, single pass first; both forms are the same loss, for
BatchNorm's groups are equal.
"""

from __future__ import annotations

import multiprocessing
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, Final

import jax
import numpy as np

from benchmarks.common import Arm, Report, main, measure
from ecgclip_jax.parallel.host import to_global
from ecgclip_jax.parallel.mesh import build_mesh
from ecgclip_jax.parallel.targets import describe, parse_target
from ecgclip_jax.spec.experiment import Experiment, MeshSpec
from ecgclip_jax.spec.files import load_experiment
from ecgclip_jax.training.program import CompiledStep, abstract_batch, compile_step, vocabulary_size
from ecgclip_jax.training.state import build_parts, init_state
from ecgclip_jax.training.step import TrainStep

MIB: Final = 2**20
MICRO_BATCH: Final = 64
BATCHES, QUICK_BATCHES = (64, 256, 1_024, 4_096), (64, 128)
TIMED_BATCH: Final = 128
DEVICES: Final = 8
LARGER_TEXT: Final = {
    "text_encoder.hidden": 512,
    "text_encoder.layers": 4,
    "text_encoder.heads": 8,
    "text_encoder.intermediate": 2048,
}
MESHES: Final = {"data=8": MeshSpec(data=8), "data=2,fsdp=4": MeshSpec(data=2, fsdp=4), "fsdp=8": MeshSpec(fsdp=8)}


def run(quick: bool) -> Report:
    """Time of one step in one pass and in two; memory at growing batches; what fsdp holds and sends."""
    facts: dict[str, object] = {}
    for batch in QUICK_BATCHES if quick else BATCHES:
        found = {name: _temporary_mib(spec) for name, spec in _forms(batch).items()}
        facts[f"B = {batch:,}: temporary MiB, one device"] = _row(found)
    for name, mesh in MESHES.items():
        facts[f"{DEVICES} devices, {name}"] = _in_new_process(_sharded_here, mesh)
    forms = _forms(TIMED_BATCH)
    timings = measure(
        [Arm(name, _steps(forms[name]), TIMED_BATCH) for name in ("single pass", "two passes", "single pass, blocks")],
        quick=quick,
        rounds=2 if quick else 5,
        sample_s=0.1,
    )
    return Report("training step by memory form", "ECG", timings, facts=facts | {"batch of the times": TIMED_BATCH})


def _row(figures: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:,.0f}" for name, value in figures.items())


def _forms(batch: int) -> dict[str, Experiment]:
    """The same loss in every form; micro-batches of `MICRO_BATCH`."""
    demo = load_experiment(Path(__file__).parents[1] / "experiments" / "merl.py", "demo")
    parts = batch // MICRO_BATCH
    whole = demo.replace({"data.batch_global": batch, "ecg_encoder.norm_groups": parts})
    return {
        "single pass": whole,
        "single pass, convolutions": whole.replace({"memory.ecg_remat": "convolutions"}),
        "single pass, blocks": whole.replace({"memory.ecg_remat": "blocks", "memory.text_remat": "layers"}),
        "two passes": whole.replace({"memory.micro_batches": parts}),
    }


def _temporary_mib(experiment: Experiment) -> float:
    compiled = compile_step(experiment, describe(parse_target("cpu")), vocabulary_size(experiment))
    assert compiled.memory.temporary is not None
    return compiled.memory.temporary / MIB


def _in_new_process(function: Callable[..., Any], *arguments: Any) -> Any:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def _sharded_here(mesh: MeshSpec) -> str:
    experiment = _forms(MICRO_BATCH)["single pass"].replace({**LARGER_TEXT, "mesh": mesh})
    described = describe(parse_target(f"cpu:{DEVICES}"))
    return _placement(compile_step(experiment, described, vocabulary_size(experiment)))


def _placement(step: CompiledStep) -> str:
    """Per device: MiB held and temporary, and MiB sent by kind of collective."""
    assert step.cost is not None
    assert step.memory.temporary is not None
    sent: Counter[str] = Counter()
    for collective in step.cost.collectives:
        sent[collective.kind] += collective.sent_bytes / MIB * collective.runs
    held = {
        "parameters": step.memory.parameters / MIB,
        "optimizer": step.memory.optimizer / MIB,
        "temporary": step.memory.temporary / MIB,
    }
    return f"MiB held: {_row(held)}; MiB sent: {_row(dict(sorted(sent.items())))}"


def _steps(experiment: Experiment) -> Callable[[], object]:
    """A step on random rows; the state moves on from call to call."""
    mesh = build_mesh(MeshSpec(), jax.devices()[:1])
    parts = build_parts(experiment, vocabulary_size(experiment))
    rng = np.random.default_rng(0)

    def rows(leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        shape = (TIMED_BATCH, *leaf.shape[1 if experiment.memory.micro_batches == 1 else 2 :])
        return rng.integers(0, 2, shape).astype(leaf.dtype)

    batch = to_global(jax.tree.map(rows, abstract_batch(experiment, mesh)), mesh, experiment.memory.micro_batches)
    step, state = TrainStep(parts, mesh), init_state(parts, mesh)

    def once() -> object:
        nonlocal state
        state, metrics = step(state, batch)
        return jax.block_until_ready(metrics)

    return once


if __name__ == "__main__":
    main(run, __doc__)
