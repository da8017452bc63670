"""MIMIC-IV-ECG with echo targets for TFDS: `tfds.builder("mimic_iv_ecg_echo", …)` after importing this module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from tfds_builders.common.tfds_builder import CohortBuilder
from tfds_builders.mimic_iv_ecg_echo.cohort import FACTS, MimicIvEcgEcho, from_source


class Builder(CohortBuilder):
    """MIMIC-IV-ECG with MIMIC-IV-ECHO. Options: `source`, `echo_window_days`, `pairing`, `ecg_first` …"""

    FACTS = FACTS
    VERSION = tfds.core.Version(FACTS.version)

    def make_cohort(self, download_dir: Path, source: str | Path | None = None, **options: Any) -> MimicIvEcgEcho:
        """See `CohortBuilder.make_cohort`."""
        return from_source(Path(source) if source else None, download_dir, **options)
