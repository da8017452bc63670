"""CPSC 2018 for TFDS: `tfds.builder("cpsc2018", data_dir=…, source=…)` after importing this module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from tfds_builders.common.cohort import Cohort
from tfds_builders.common.tfds_builder import CohortBuilder
from tfds_builders.cpsc2018.cohort import FACTS, from_source


class Builder(CohortBuilder):
    """CPSC 2018, native or as the Challenge has it. Options: `source`."""

    FACTS = FACTS
    VERSION = tfds.core.Version(FACTS.version)

    def make_cohort(self, download_dir: Path, source: str | Path | None = None, **options: Any) -> Cohort:
        """See `CohortBuilder.make_cohort`."""
        return from_source(Path(source) if source else None, download_dir, **options)
