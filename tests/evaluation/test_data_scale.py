"""An input that is z-scored over the data set is given what the training records measure, and nothing of the tests."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from suite_world import SuiteFake, make_suite, make_world, opener

from ecgclip_jax.evaluation.suites import opening
from ecgclip_jax.evaluation.suites.context import SuiteModels
from ecgclip_jax.evaluation.suites.runner import run_suite
from ecgclip_jax.spec.experiment import Experiment
from ecgclip_jax.spec.signal import MISSING_UV

Z_SCORED = SuiteFake().experiment.replace({"signal.normalisation": "zscore_dataset", "signal.missing_leads": "mask"})
SEEN: list[Experiment] = []


@dataclass(frozen=True)
class Scaled(SuiteFake):
    """Remembers the experiment that it embeds with."""

    experiment: Experiment = field(default=Z_SCORED)  # type: ignore[misc]

    def encode_ecg(self, ecg_uv: np.ndarray, mains_hz: np.ndarray | None = None, batch: int = 64) -> object:
        SEEN.append(self.experiment)
        return super().encode_ecg(ecg_uv, mains_hz, batch)


def test_every_split_is_scaled_as_the_training_records_measure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    SEEN.clear()
    world = make_world()
    stored = world["train"].read_ecg(list(range(len(world["train"]))))
    stored[:7, 100:4000, 2] = MISSING_UV
    stored[:, :, 4] = MISSING_UV
    stored[:, :, 5] = 120
    world["train"].waveforms.ecg_uv[:] = stored
    monkeypatch.setattr(opening, "open_cohort", opener(world))
    models = SuiteModels(SuiteFake(), lambda seed: SuiteFake(0.0, seed + 1), arms={"scaled": Scaled()})
    spec = make_suite(protocols=("linear_probe",), fractions=(1.0,), draws=1)
    run_suite(spec, models, "nowhere", tmp_path, show_progress=False)
    assert SEEN
    ecg_mv = np.where(stored == MISSING_UV, np.nan, stored / 1000).reshape(-1, 12)
    with np.errstate(invalid="ignore"), pytest.warns(RuntimeWarning):
        expected = np.stack([np.nanmean(ecg_mv, axis=0), np.nanstd(ecg_mv, axis=0)], axis=1)
    expected[[4, 5]] = 0, 1  # a lead that is nowhere, and one that tells nothing
    for experiment in SEEN:
        np.testing.assert_allclose(experiment.signal.lead_scale, expected, rtol=1e-4, atol=1e-6)
