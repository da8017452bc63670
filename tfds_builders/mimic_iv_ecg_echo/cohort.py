"""What is special about MIMIC-IV-ECG with MIMIC-IV-ECHO: ECGs chosen by the echo that they are near to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Final

import pyarrow as pa
from rich.console import Console

from tfds_builders.common.audit import BuildReason
from tfds_builders.common.cohort import BuildError, CohortFacts
from tfds_builders.common.joins import joint_sha256
from tfds_builders.common.metadata import MetadataTable, sha256_of
from tfds_builders.common.records import Described
from tfds_builders.common.sources import given_folder
from tfds_builders.common.splits import DEFAULT_SHARES
from tfds_builders.common.stated import stated_codes
from tfds_builders.common.table_cohort import Row, RowError
from tfds_builders.mimic_iv_ecg import tables
from tfds_builders.mimic_iv_ecg.cohort import MimicIvEcg
from tfds_builders.mimic_iv_ecg_echo.echo import TARGETS, WORDS, Pairing, PairingRule, echos, findings, numbers, paired

FACTS = CohortFacts(
    name="mimic_iv_ecg_echo",
    version="1.0.0",
    access="credentialed",
    licence="ECGs: Open Data Commons Open Database License 1.0; echo: PhysioNet Credentialed Health Data License 1.5.0",
    homepage="https://physionet.org/content/mimic-iv-echo/1.0/",
    label_vocabulary="mimic_iv_echo",
    package=Path(__file__).parent,
)
_GAP: Final = "echo_gap_days"
_FIELDS: Final = (*TARGETS, *WORDS)


@dataclass(frozen=True)
class MimicIvEcgEcho(MimicIvEcg):
    """MIMIC-IV-ECG's folder with MIMIC-IV-ECHO's `structured-measurement.csv[.gz]` in it."""

    pairing: Pairing = "nearest_ecg"
    """Of each echo the nearest ECG alone, or all ECGs within the window, each with the echo nearest to it."""
    ecg_first: bool = False
    """Only ECGs at the time of the echo or before it."""

    stratify: ClassVar[Mapping[str, float]] = DEFAULT_SHARES

    @property
    def facts(self) -> CohortFacts:
        """See `Cohort.facts`."""
        return FACTS

    @property
    def options(self) -> Mapping[str, Any]:
        """See `Cohort.options`."""
        return {**super().options, "pairing": self.pairing, "ecg_first": self.ecg_first}

    def metadata(self) -> MetadataTable:
        """The study list with what the echo of each ECG found; nothing for ECGs that have none near."""
        path = tables.echo_file(self.source)
        if path is None:
            raise BuildError(
                f"{self.source} lacks {tables.ECHO}[.gz] of MIMIC-IV-ECHO: lay it beside {tables.RECORDS}. It is at "
                f"{FACTS.homepage}, asks for credentialed access, and is never downloaded from here"
            )
        joined = tables.joined(self.source, self.machine_measurements, self.icd_column, echo_window_days=None)
        rule = PairingRule(self.echo_window_days, self.pairing, self.ecg_first)
        subjects, times = (joined.table[name].to_pylist() for name in ("subject_id", "ecg_time"))
        pairs = paired(subjects, [tables.seconds(time) for time in times], echos(path), rule)
        table = joined.table.append_column(_GAP, _texts("" if pair is None else f"{pair[1]:.3f}" for pair in pairs))
        for field in _FIELDS:
            cells = ("" if pair is None else pair[0].results.get(field, "") for pair in pairs)
            table = table.append_column(f"echo_{field}", _texts(cells))
        return MetadataTable(table, joined.malformed, joint_sha256((joined.sha256, sha256_of(path))))

    def strata(self, row: Row) -> Sequence[str]:
        """The findings of the row's echo."""
        return findings(_results(row))

    def describe(self, row: Row) -> Described:
        """See `TableCohort.describe`: what the machine measured, what the echo did, and its findings as labels."""
        if not row[_GAP]:
            raise RowError(BuildReason.no_echo_near, f"no echo that this ECG is paired with ({self.pairing})")
        results = _results(row)
        # Diagnoses of the stay are another vocabulary, and the base's own column for the LVEF is one of the targets.
        described = super().describe({**row, "icd_codes": "", "echo_lvef": ""})
        return replace(
            described,
            labels=stated_codes(findings(results)),
            measurements=(*described.measurements, *numbers(results).items()),
        )


def _texts(cells: Iterable[str]) -> pa.Array:
    return pa.array(list(cells), pa.string())


def _results(row: Row) -> dict[str, str]:
    return {field: row[f"echo_{field}"] for field in _FIELDS}


def from_source(source: Path | None, downloads: Path, console: Console | None = None, **options: Any) -> MimicIvEcgEcho:
    """See `registry.make_cohort`; never downloaded."""
    return MimicIvEcgEcho(given_folder(source, FACTS), **options)
