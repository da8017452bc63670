"""HEEDB for TFDS: `tfds.builder("heedb", data_dir=…, source=…)` after importing this module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from tfds_builders.common.tfds_builder import CohortBuilder
from tfds_builders.heedb.cohort import FACTS, Heedb, from_source


class Builder(CohortBuilder):
    """HEEDB 5.0. Options: `source`, `hospital`, `first_year`, `last_year`, `labels_from`."""

    FACTS = FACTS
    VERSION = tfds.core.Version(FACTS.version)

    def make_cohort(self, download_dir: Path, source: str | Path | None = None, **options: Any) -> Heedb:
        """See `CohortBuilder.make_cohort`."""
        return from_source(Path(source) if source else None, download_dir, **options)
