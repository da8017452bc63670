"""What a cohort declares, so that one writer can build any of them: facts, a plan of shards, a conversion."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from ecgclip_jax.spec.errors import UserError
from tfds_builders.common.audit import AuditRow, Outcome
from tfds_builders.common.schema import Record

AccessClass = Literal["open", "registered", "credentialed", "private"]
Compression = Literal["zstd:1", "snappy", "uncompressed"]
"""Of each record by itself, so that random access reads one ECG and not a block of them."""
SMALLEST: Compression = "zstd:1"
"""Level 1 instead of the writer's own 3: five times faster for 2 % more bytes (measured on int16 ECGs)."""


class BuildError(UserError):
    """A cohort that cannot be built as a whole: a wrong folder, a missing column, no network."""


@dataclass(frozen=True, slots=True)
class CohortFacts:
    """What is true of a cohort as a whole; it goes into `cohort.json` and the TFDS metadata."""

    name: str
    version: str
    access: AccessClass
    licence: str
    homepage: str
    label_vocabulary: str
    package: Path
    """The builder's folder, which holds `README.md` (the description) and `CITATIONS.bib`."""
    published_counts: Mapping[str, int] = field(default_factory=dict)
    """What the authors say there is, for the audit to compare: `records` (source records), `patients`,
    `records/<split>`, `label/<code>` (source records with it)."""

    @property
    def description(self) -> str:
        """The text of the folder's README."""
        return (self.package / "README.md").read_text(encoding="utf-8").strip()

    @property
    def citation(self) -> str:
        """The folder's BibTeX."""
        return (self.package / "CITATIONS.bib").read_text(encoding="utf-8").strip()


@dataclass(frozen=True, slots=True)
class Shard:
    """A unit of work: source records of one split that become one shard file. Must pickle small."""

    split: str
    index: int
    source_rows: int
    payload: Any


@dataclass(frozen=True, slots=True)
class SplitRule:
    """How a cohort's records came into their splits; `cohort.json` says it."""

    kind: str
    """`official`, `stratified` or `frozen` (read from lists that an earlier build had made)."""
    note: str = ""
    seed: int | None = None
    shares: Mapping[str, float] | None = None
    """Share of the patients in each split, where we decided."""
    labels_not_everywhere: tuple[str, ...] = ()
    """Labels that have fewer patients than there are splits: some split has no positive of them."""

    def as_json(self) -> dict[str, Any]:
        """The rule without what does not apply to it."""
        return {name: value for name, value in asdict(self).items() if value not in (None, "", ())}


OFFICIAL = SplitRule("official")


@dataclass(frozen=True, slots=True)
class Plan:
    """Who goes where, decided before a waveform is read."""

    shards: Sequence[Shard]
    """In split order; may be lazy, so that its size in memory is that of the metadata table."""
    dropped: tuple[AuditRow, ...]
    """Source records that no shard will see."""
    source_rows: int
    source_hash: str
    """SHA-256 of what the plan was made from: equal plans have equal hashes."""
    split_rule: SplitRule = OFFICIAL


@dataclass(frozen=True, slots=True)
class SourceOutcome:
    """What one source record became: no record means dropped."""

    source_index: int
    record_id: str
    split: str
    records: tuple[Record, ...]
    reasons: tuple[str, ...] = ()
    detail: str = ""

    def audit_row(self) -> AuditRow:
        """Its row in the audit."""
        outcome = Outcome.dropped if not self.records else Outcome.flagged if self.reasons else Outcome.kept
        return AuditRow(
            self.source_index, self.record_id, self.split, outcome, self.reasons, self.detail, len(self.records)
        )


@dataclass(frozen=True)
class Cohort(ABC):
    """A cohort, with its options, as a small picklable value (a frozen dataclass)."""

    compression: Compression = field(default=SMALLEST, kw_only=True)
    """Of the shards; it changes no record."""

    @property
    @abstractmethod
    def facts(self) -> CohortFacts:
        """Name, version, access class, licence …"""

    @property
    @abstractmethod
    def options(self) -> Mapping[str, Any]:
        """The options that change what is built, for `cohort.json`; JSON values, no paths."""

    @property
    def build_options(self) -> Mapping[str, Any]:
        """`options`, and how shards are compressed where that is not as usual."""
        return self.options if self.compression == SMALLEST else {**self.options, "compression": self.compression}

    @abstractmethod
    def plan(self) -> Plan:
        """Splits and shards; patients never in two splits.

        Raises:
          BuildError: if the source is not what it should be.
        """

    @abstractmethod
    def convert(self, shard: Shard) -> Iterator[SourceOutcome]:
        """Every source record of a shard, in order, read and turned into stored windows. Runs in a worker process."""


def rows_per_shard(source_rows: int, least: int = 256, most_shards: int = 512) -> int:
    """Source records per shard: a function of the cohort's size alone, never of the number of workers.

    Small shards make progress visible and an interruption cheap; too many make a dataset slow to open.
    """
    return max(least, -(-source_rows // most_shards))
