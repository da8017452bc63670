"""MIMIC-IV-ECG for TFDS: `tfds.builder("mimic_iv_ecg", data_dir=…, source=…)` after importing this module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from tfds_builders.common.tfds_builder import CohortBuilder
from tfds_builders.mimic_iv_ecg.cohort import FACTS, MimicIvEcg, from_source


class Builder(CohortBuilder):
    """MIMIC-IV-ECG 1.0. Options: `source` (PhysioNet's folder, never downloaded), `icd_column`, `echo_window_days` …"""

    FACTS = FACTS
    VERSION = tfds.core.Version(FACTS.version)

    def make_cohort(self, download_dir: Path, source: str | Path | None = None, **options: Any) -> MimicIvEcg:
        """See `CohortBuilder.make_cohort`."""
        return from_source(Path(source) if source else None, download_dir, **options)
