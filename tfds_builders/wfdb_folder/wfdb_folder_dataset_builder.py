"""Own WFDB records for TFDS: `tfds.builder("wfdb_folder", data_dir=…, source=…)` after importing this module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from tfds_builders.common.tfds_builder import CohortBuilder
from tfds_builders.wfdb_folder.cohort import FACTS, WfdbFolder, from_source


class Builder(CohortBuilder):
    """A user's own WFDB records. Options: `source` (a folder with cohort.yaml)."""

    FACTS = FACTS
    VERSION = tfds.core.Version(FACTS.version)

    def make_cohort(self, download_dir: Path, source: str | Path | None = None, **options: Any) -> WfdbFolder:
        """See `CohortBuilder.make_cohort`."""
        return from_source(Path(source) if source else None, download_dir, **options)
