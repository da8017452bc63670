"""The Challenge 2017 for TFDS: `tfds.builder("cinc2017", data_dir=…, source=…)` after importing this module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from tfds_builders.cinc2017.cohort import FACTS, Cinc2017, from_source
from tfds_builders.common.tfds_builder import CohortBuilder


class Builder(CohortBuilder):
    """The Challenge 2017. Options: `source` (its folder as published, unpacked)."""

    FACTS = FACTS
    VERSION = tfds.core.Version(FACTS.version)

    def make_cohort(self, download_dir: Path, source: str | Path | None = None, **options: Any) -> Cinc2017:
        """See `CohortBuilder.make_cohort`."""
        return from_source(Path(source) if source else None, download_dir, **options)
