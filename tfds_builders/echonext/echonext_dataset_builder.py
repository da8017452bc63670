"""EchoNext for TFDS: `tfds.builder("echonext", data_dir=…, source=…)` after importing this module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from tfds_builders.common.tfds_builder import CohortBuilder
from tfds_builders.echonext.cohort import FACTS, EchoNext, from_source


class Builder(CohortBuilder):
    """EchoNext 1.1.0. Options: `source` (its folder as published, with the authors' constants)."""

    FACTS = FACTS
    VERSION = tfds.core.Version(FACTS.version)

    def make_cohort(self, download_dir: Path, source: str | Path | None = None, **options: Any) -> EchoNext:
        """See `CohortBuilder.make_cohort`."""
        return from_source(Path(source) if source else None, download_dir, **options)
