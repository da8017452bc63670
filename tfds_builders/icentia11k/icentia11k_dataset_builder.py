"""Icentia11k for TFDS: `tfds.builder("icentia11k", data_dir=…, source=…)` after importing this module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from tfds_builders.common.tfds_builder import CohortBuilder
from tfds_builders.icentia11k.cohort import FACTS, Icentia11k, from_source


class Builder(CohortBuilder):
    """Icentia11k 1.0. Options: `source`, `windows_per_segment`, `segments_per_patient`, `stored_as`."""

    FACTS = FACTS
    VERSION = tfds.core.Version(FACTS.version)

    def make_cohort(self, download_dir: Path, source: str | Path | None = None, **options: Any) -> Icentia11k:
        """See `CohortBuilder.make_cohort`."""
        return from_source(Path(source) if source else None, download_dir, **options)
