"""The ten hospitals for TFDS: `tfds.builder("synthetic_hospitals", data_dir=…, size=…)` after importing this module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from tfds_builders.common.tfds_builder import CohortBuilder
from tfds_builders.synthetic_hospitals.cohort import FACTS, SyntheticHospitals


class Builder(CohortBuilder):
    """ECGs of ten synthetic hospitals. Options: `size` (about how many ECGs), `seed`, `sampling`."""

    FACTS = FACTS
    VERSION = tfds.core.Version(FACTS.version)

    def make_cohort(self, download_dir: Path, **options: Any) -> SyntheticHospitals:
        """See `CohortBuilder.make_cohort`; nothing is downloaded."""
        return SyntheticHospitals(**options)
