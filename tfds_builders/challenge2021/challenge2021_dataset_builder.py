"""The Challenge 2021 for TFDS: `tfds.builder("challenge2021", data_dir=…, source=…)` after importing this module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from tfds_builders.challenge2021.cohort import FACTS, Challenge2021, from_source
from tfds_builders.common.tfds_builder import CohortBuilder


class Builder(CohortBuilder):
    """The Challenge 2021. Options: `source`, `database` (one of eight, or all)."""

    FACTS = FACTS
    VERSION = tfds.core.Version(FACTS.version)

    def make_cohort(self, download_dir: Path, source: str | Path | None = None, **options: Any) -> Challenge2021:
        """See `CohortBuilder.make_cohort`."""
        return from_source(Path(source) if source else None, download_dir, **options)
