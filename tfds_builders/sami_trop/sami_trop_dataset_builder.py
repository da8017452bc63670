"""SaMi-Trop for TFDS: `tfds.builder("sami_trop", data_dir=…, source=…)` after importing this module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from tfds_builders.common.tfds_builder import CohortBuilder
from tfds_builders.sami_trop.cohort import FACTS, SamiTrop, from_source


class Builder(CohortBuilder):
    """SaMi-Trop. Options: `source` (its folder as published, unpacked)."""

    FACTS = FACTS
    VERSION = tfds.core.Version(FACTS.version)

    def make_cohort(self, download_dir: Path, source: str | Path | None = None, **options: Any) -> SamiTrop:
        """See `CohortBuilder.make_cohort`."""
        return from_source(Path(source) if source else None, download_dir, **options)
