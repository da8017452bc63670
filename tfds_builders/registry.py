"""Every cohort by name: those with a builder, and those that are declared so that a task can say what it lacks."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from rich.console import Console

from tfds_builders.common.cohort import BuildError, Cohort

BUILDERS: Final = (
    "synthetic_ecg",
    "synthetic_hospitals",
    "ptb_xl",
    "mimic_iv_ecg",
    "mimic_iv_ecg_echo",
    "heedb",
    "challenge2021",
    "chapman_shaoxing_ningbo",
    "cpsc2018",
    "cpsc2021",
    "ptb",
    "ludb",
    "sph",
    "code15",
    "sami_trop",
    "cinc2017",
    "mitdb",
    "icentia11k",
    "echonext",
    "table_folder",
    "wfdb_folder",
)
"""Each is a package here whose `cohort` module has `from_source`."""

DECLARED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "mc_med": "MC-MED (PhysioNet, credentialed) holds monitor waveforms of lead II; no builder reads them",
        "music": "no builder reads MUSIC's Holter recordings",
        "aurora_bp": "no builder reads Aurora-BP; its owner asks for an application",
        "apnea_ecg": "no builder reads Apnea-ECG's night-long single-lead recordings",
        "deepbeat": "DeepBeat is photoplethysmography, which no encoder here takes",
    }
)
"""Cohorts without a builder, and why: a task on one of them says so by name."""


def make_cohort(
    name: str, source: Path | None, downloads: Path, console: Console | None = None, **options: Any
) -> Cohort:
    """A cohort by name.

    Args:
      source: folder of the cohort's own files; None downloads or generates them where that is possible.
      downloads: the folder for this cohort's downloads.
      console: where a download's progress is shown.
      options: the cohort's own.

    Raises:
      BuildError: no such cohort, no builder for it, or an unusable source.
    """
    if name in DECLARED:
        raise BuildError(f"no data of {name}: {DECLARED[name]}")
    if name not in BUILDERS:
        raise BuildError(f"no builder for {name!r}; there are {', '.join(BUILDERS)}")
    cohort: Cohort = import_module(f"tfds_builders.{name}.cohort").from_source(source, downloads, console, **options)
    return cohort
