"""The step as shapes: the batch compiled for is the batch that trains; what would help one that is too large."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import jax
import pytest
from support.tiny_training import BATCH, tiny_experiment

from ecgclip_jax.data.index import build_index
from ecgclip_jax.data.pipeline import TrainPipeline
from ecgclip_jax.parallel.host import to_global
from ecgclip_jax.parallel.mesh import MeshError, build_mesh
from ecgclip_jax.parallel.targets import DescribedDevices, parse_target
from ecgclip_jax.spec.encoders import BertSpec, TokenizerSpec
from ecgclip_jax.spec.experiment import MeshSpec
from ecgclip_jax.spec.objectives import ClefSpec, SupervisedSpec, SurvivalSpec
from ecgclip_jax.text.tokenizer import make_tokenizer
from ecgclip_jax.training.fitting import gib, remedies
from ecgclip_jax.training.program import (
    BERT_VOCABULARY,
    CompiledStep,
    CompileError,
    MemoryUse,
    abstract_batch,
    bytes_refused,
    compile_lowered,
    vocabulary_size,
)

GIB = 2**30


@pytest.mark.parametrize("micro_batches", [1, 2])
def test_the_abstract_batch_is_the_one_that_trains(run_data: Path, micro_batches: int) -> None:
    experiment = tiny_experiment().replace(
        {"memory.micro_batches": micro_batches, "ecg_encoder.norm_groups": micro_batches}
    )
    mesh = build_mesh(MeshSpec(data=4, fsdp=2), jax.devices()[:8])
    index = build_index(experiment.data, run_data, experiment.seed)
    assert experiment.text_encoder is not None
    spec = experiment.text_encoder.tokenizer
    pipeline = TrainPipeline(index, make_tokenizer(spec, index.texts), max_tokens=spec.max_tokens, batch_global=BATCH)
    real = to_global(next(pipeline.batches()), mesh, micro_batches)
    assert jax.tree.map(_described, abstract_batch(experiment, mesh)) == jax.tree.map(_described, real)


def _described(leaf: jax.Array | jax.ShapeDtypeStruct) -> tuple[object, ...]:
    return leaf.shape, leaf.dtype, leaf.sharding


def test_objectives_bring_their_own_columns() -> None:
    mesh = build_mesh(MeshSpec(), jax.devices()[:1])
    labels = SupervisedSpec(labels=("a", "b", "c"), measurements=("age_years",))
    for objective, expected in (
        (ClefSpec(), {"risk": (), "risk_completeness": ()}),
        (SurvivalSpec(), {"follow_up_years": (), "event": ()}),
        (labels, {"labels": (3,), "measurements": (1,)}),
    ):
        batch = abstract_batch(tiny_experiment(objective=objective, text_encoder=None), mesh)
        for name, shape in expected.items():
            assert batch.extras[name].shape == batch.extras_present[name].shape == (BATCH, *shape)


def test_a_batch_that_does_not_divide_is_refused() -> None:
    mesh = build_mesh(MeshSpec(), jax.devices()[:3])
    with pytest.raises(MeshError, match="must divide by the 3 devices of the mesh; 5 or 6 times 3 would"):
        abstract_batch(tiny_experiment(), mesh)


def test_without_a_tokenizer_at_hand_a_checkpoints_is_berts() -> None:
    assert vocabulary_size(tiny_experiment()) == 64
    bert = BertSpec(weights="some/checkpoint", tokenizer=TokenizerSpec(source="some/checkpoint"))
    assert vocabulary_size(tiny_experiment(text_encoder=bert)) == BERT_VOCABULARY
    assert vocabulary_size(tiny_experiment(objective=SurvivalSpec(), text_encoder=None)) == 0


def test_what_a_compiler_wanted_is_read_from_its_refusal() -> None:
    assert bytes_refused("RESOURCE_EXHAUSTED: ... Used 20.50G of 15.75G hbm.") == int(20.5 * GIB)
    assert bytes_refused("required for HLO temporaries (154.00G) exceeds available HBM (15.75G)") == 154 * GIB
    assert bytes_refused("nothing said") == 0


def test_what_a_compiler_refuses_for_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    lowered = jax.jit(lambda x: x + 1).lower(1.0)

    def compiled(message: str) -> object:
        def refuse(_: object) -> None:
            raise jax.errors.JaxRuntimeError(message)

        monkeypatch.setattr(jax.stages.Lowered, "compile", refuse)
        return compile_lowered(lowered)

    assert compiled("RESOURCE_EXHAUSTED: ... Used 20.50G of 15.75G hbm.") == (None, int(20.5 * GIB))
    # As XLA for CUDA says it of ViT-small's step (jax 0.10.2, described H200).
    with pytest.raises(CompileError, match="to library_products"):
        compiled("INTERNAL: Couldn't find output tile sizes that satisfy hlo: %dot.634 = bf16[25600,384]{1,0} dot(")
    with pytest.raises(jax.errors.JaxRuntimeError, match="something else"):
        compiled("INTERNAL: something else")


def too_large(needed: int) -> CompiledStep:
    """64 ECGs on each of 8 H200: 1 GiB of state and gradients, the rest activations."""
    experiment = tiny_experiment().replace({"data.batch_global": 512})
    memory = MemoryUse(
        parameters=GIB // 4, optimizer=GIB // 2, target=0, statistics=0, filters=0, batch=0, trained=GIB // 4,
        temporary=needed - GIB, kept_for_backward=0, outputs=0, program=0, needed=needed,
    )  # fmt: skip
    target = parse_target("h200:8")
    described = DescribedDevices(target, jax.devices()[:8], stand_in=False)
    mesh = build_mesh(MeshSpec(), jax.devices()[:8])
    return CompiledStep(experiment, described, mesh, memory, 1.0, "", None, [], None, None, None)


def test_what_would_help_a_step_that_does_not_fit() -> None:
    """401 GiB on 139.7: activations of 400 must shrink to 138.7, so 4 parts, 4 times the devices, a quarter of ECGs."""
    step = too_large(401 * GIB)
    assert step.fits is False
    found = {remedy.setting: remedy.effect for remedy in remedies(step)}
    assert "--memory.micro-batches 4 --ecg-encoder.norm-groups 4" in found
    assert "100.00 GiB" in found["--memory.micro-batches 4 --ecg-encoder.norm-groups 4"]
    assert "32 devices instead of 8" in found
    assert "--data.batch-global 128" in found
    assert "--ecg-encoder.dtype bfloat16" in found
    assert "--memory.ecg-remat blocks" in found


def test_only_what_helps_is_offered() -> None:
    step = too_large(401 * GIB)
    lean = step.experiment.replace({"ecg_encoder.dtype": "bfloat16", "memory.ecg_remat": "blocks"})
    settings = [remedy.setting for remedy in remedies(replace(step, experiment=lean))]
    assert not [setting for setting in settings if "dtype" in setting or "ecg-remat" in setting]
    state = replace(step.memory, optimizer=200 * GIB, needed=601 * GIB)
    found = {remedy.setting: remedy.effect for remedy in remedies(replace(step, memory=state))}
    assert not [setting for setting in found if "micro-batches" in setting], "the state alone is too large"
    assert any("fsdp" in setting for setting in found)


def test_sizes_are_written_in_the_unit_that_fits() -> None:
    assert [gib(n) for n in (3 * GIB // 2, 5 * 2**20, 1536, 10)] == ["1.50 GiB", "5.00 MiB", "1.50 KiB", "10 B"]
