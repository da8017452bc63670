"""The grid of untrained encoders: every input once, the paper's canonical one among them."""

from __future__ import annotations

from ecgclip_jax.spec.experiment import DataSpec, Source
from ecgclip_jax.spec.random_grid import random_grid


def test_every_input_of_the_grid_stands_once_and_none_reads_text() -> None:
    grid = random_grid(DataSpec(sources=(Source(cohort="any"),), batch_global=64, null_world="shuffled_reports"))
    inputs = {
        (e.ecg_encoder.kind, e.signal.rate_hz, e.signal.normalisation, e.signal.bandpass is None) for e in grid.values()
    }
    assert len(grid) == len(inputs) == 36
    assert {e.ecg_encoder.feature_width for e in grid.values()} == {512}
    canonical = grid["random ResNet-18, 500 Hz"]
    assert (canonical.signal.normalisation, canonical.signal.bandpass) == ("none", None)
    assert not any(e.objective.reads_text for e in grid.values())
