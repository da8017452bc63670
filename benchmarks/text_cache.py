"""Text cache: training steps with a frozen text tower whose outputs are kept, against the same steps that run it.

The whole step from the loader on, on a synthetic cohort: waveforms read, texts by row or as tokens, both towers, MERL's
losses, AdamW. One run, one set of weights; the first loss of both arms must agree, or nothing is timed. The full form
is MERL's size (ResNet-18 on 12 x 5000, BERT-base on 256 tokens), the quick one a small model of about the same shares.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Generator
from contextlib import ExitStack
from pathlib import Path

import jax
from jax.sharding import Mesh

from benchmarks.common import Arm, Report, main, measure
from ecgclip_jax.contracts import Batch
from ecgclip_jax.parallel.mesh import build_mesh
from ecgclip_jax.spec.encoders import BertSpec, HeadSpec, ResNet1DSpec, TokenizerSpec
from ecgclip_jax.spec.experiment import DataSpec, Experiment, MeshSpec, OptimizerSpec, RunSpec, Source
from ecgclip_jax.spec.objectives import InfoNCESpec
from ecgclip_jax.spec.signal import merl
from ecgclip_jax.training.feed import Feed
from ecgclip_jax.training.loop import build_pipeline
from ecgclip_jax.training.run_folder import open_run_folder
from ecgclip_jax.training.state import TrainState, build_parts, init_state
from ecgclip_jax.training.step import TrainStep
from ecgclip_jax.training.text_cache import open_text_cache
from tfds_builders.common.build import build
from tfds_builders.synthetic_ecg.cohort import SyntheticEcg

LOSS_TOLERANCE = 1e-5


def experiment(quick: bool) -> Experiment:
    """MERL in full size, or small."""
    sizes = (256, 4, 4, 1024, 128) if quick else (768, 12, 12, 3072, 256)
    hidden, layers, heads, intermediate, tokens = sizes
    return Experiment(
        name="text_cache",
        summary="benchmark",
        data=DataSpec(sources=(Source(cohort="synthetic_ecg"),), batch_global=16 if quick else 32),
        signal=merl(),
        ecg_encoder=ResNet1DSpec(depth=18, width=8 if quick else 64, pool_width=64 if quick else 256),
        text_encoder=BertSpec(
            hidden=hidden,
            layers=layers,
            heads=heads,
            intermediate=intermediate,
            dropout=0.0,
            tokenizer=TokenizerSpec(vocab_size=1000, max_tokens=tokens),
        ),
        objective=InfoNCESpec(direction="sum", uni_modal_weight=1.0, embedding_dim=64 if quick else 256,
                              text_head=HeadSpec(kind="mlp", hidden=64 if quick else 256)),
        optimizer=OptimizerSpec(schedule="constant", frozen=("^text/",)),
        run=RunSpec(steps=10_000),
    )  # fmt: skip


class Running:
    """A run that goes on step by step."""

    def __init__(self, spec: Experiment, workdir: Path, data_dir: Path, mesh: Mesh) -> None:
        folder = open_run_folder(spec, workdir, data_dir, resume=True)
        parts, pipeline = build_parts(spec, folder.facts["vocab_size"]), build_pipeline(spec, folder)
        self.state: TrainState = init_state(parts, mesh)
        tower = self.state.params["text"]
        texts = open_text_cache(parts, mesh, folder, pipeline.texts, tower) if spec.caches_text else None
        self.batches: Generator[Batch, None, None] = Feed(pipeline, mesh, 1, texts).batches(0)
        self.step, self.n_texts = TrainStep(parts, mesh), len(pipeline.texts)

    def once(self) -> float:
        """One update; its loss."""
        self.state, metrics = self.step(self.state, next(self.batches))
        return float(metrics["loss"])


def _several(once: Callable[[], float], steps: int) -> Callable[[], object]:
    return lambda: [once() for _ in range(steps)]


def run(quick: bool) -> Report:
    """Seconds per step of both arms, after their first losses were compared."""
    mesh, steps = build_mesh(MeshSpec(), jax.devices()[:1]), 2 if quick else 1
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as streams:
        root = Path(temporary)
        build(SyntheticEcg(size=200 if quick else 1000), root / "data", workers=0)
        cached_spec = experiment(quick)
        live_spec = cached_spec.replace({"memory.text_cache": "off"})
        cached = Running(cached_spec, root / "cached", root / "data", mesh)
        live = Running(live_spec, root / "live", root / "data", mesh)
        for arm in (cached, live):
            streams.callback(arm.batches.close)
        losses = cached.once(), live.once()
        apart = abs(losses[0] / losses[1] - 1)
        if not apart <= LOSS_TOLERANCE:
            raise SystemExit(f"the first losses differ by {apart:.1e} (at most {LOSS_TOLERANCE:.0e}): no timing")
        arms = [
            Arm("text cached", _several(cached.once, steps), steps),
            Arm("text in the step", _several(live.once, steps), steps),
        ]
        timings = measure(arms, quick=quick, rounds=3 if quick else 5)
    return Report(
        name="text cache",
        item="step",
        timings=timings,
        notes=("the cache itself was made before the first step and is not in the times",),
        facts={
            "batch": cached_spec.data.batch_global,
            "distinct texts": cached.n_texts,
            "relative difference of the first loss": f"{apart:.1e}",
        },
    )


if __name__ == "__main__":
    main(run, __doc__)
