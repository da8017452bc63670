"""MIT-BIH for TFDS: `tfds.builder("mitdb", data_dir=…, source=…)` after importing this module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from tfds_builders.common.tfds_builder import CohortBuilder
from tfds_builders.mitdb.cohort import FACTS, Mitdb, from_source


class Builder(CohortBuilder):
    """MIT-BIH 1.0.0. Options: `source` (without it, it is downloaded), `modified_ii_as_ii`."""

    FACTS = FACTS
    VERSION = tfds.core.Version(FACTS.version)

    def make_cohort(self, download_dir: Path, source: str | Path | None = None, **options: Any) -> Mitdb:
        """See `CohortBuilder.make_cohort`."""
        return from_source(Path(source) if source else None, download_dir, **options)
