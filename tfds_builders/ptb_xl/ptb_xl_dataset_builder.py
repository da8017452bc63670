"""PTB-XL for TFDS: `tfds.builder("ptb_xl", data_dir=…, source=…)` after importing this module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from tfds_builders.common.tfds_builder import CohortBuilder
from tfds_builders.ptb_xl.cohort import FACTS, PtbXl, from_source


class Builder(CohortBuilder):
    """PTB-XL 1.0.3. Options: `source` (a folder in PhysioNet's layout; without it, it is downloaded), `rate_hz`."""

    FACTS = FACTS
    VERSION = tfds.core.Version(FACTS.version)

    def make_cohort(self, download_dir: Path, source: str | Path | None = None, **options: Any) -> PtbXl:
        """See `CohortBuilder.make_cohort`."""
        return from_source(Path(source) if source else None, download_dir, **options)
