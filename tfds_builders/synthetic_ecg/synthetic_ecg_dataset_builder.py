"""The synthetic cohort for TFDS: `tfds.builder("synthetic_ecg", data_dir=…, size=…)` after importing this module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from tfds_builders.common.tfds_builder import CohortBuilder
from tfds_builders.synthetic_ecg.cohort import FACTS, SyntheticEcg


class Builder(CohortBuilder):
    """Synthetic ECGs of the default world. Options: `size` (about how many ECGs), `seed`."""

    FACTS = FACTS
    VERSION = tfds.core.Version(FACTS.version)

    def make_cohort(self, download_dir: Path, **options: Any) -> SyntheticEcg:
        """See `CohortBuilder.make_cohort`; nothing is downloaded."""
        return SyntheticEcg(**options)
