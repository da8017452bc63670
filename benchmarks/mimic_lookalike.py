"""A MIMIC-IV-ECG look-alike is built, killed twice on the way, resumed, and must be complete to the record.

python -m benchmarks.mimic_lookalike FOLDER --records 2000
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import tensorflow_datasets as tfds
from rich.console import Console
from rich.table import Table

from benchmarks.common import environment
from tfds_builders.mimic_iv_ecg.make_dummy_data import LEADS, Study, write_lookalike

N_RECORDS = 50_000
_KILLS = ((signal.SIGTERM, 1), (signal.SIGKILL, 3))
"""Signal, and after how many more finished shards it comes."""
_SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Claim:
    """What must be true of the finished dataset."""

    what: str
    found: object
    expected: object

    @property
    def holds(self) -> bool:
        """Whether it is."""
        return self.found == self.expected


def mimic_lookalike(folder: Path, console: Console, n_records: int = N_RECORDS) -> bool:
    """50,000 MIMIC-IV-ECG look-alikes build, are killed by SIGTERM and by SIGKILL, resume, and none is lost."""
    source, data_dir = folder / f"source-{n_records}", folder / f"data-{n_records}"
    studies = _source(source, n_records, console)
    prepared = data_dir / "mimic_iv_ecg" / "1.0.0"
    if prepared.exists():
        raise SystemExit(f"{prepared} is there already; remove it to prove anything")
    finished = 0
    for number, more_shards in _KILLS:
        finished = _run_and_kill(source, data_dir, number, finished + more_shards)
        console.print(f"killed by {number.name} with {finished} shards finished")
    started = time.time()
    subprocess.run(_command(source, data_dir), check=True)
    of_before = sum(path.stat().st_mtime < started for path in prepared.glob("*.array_record-*"))
    claims = [
        Claim("shards of before the kills, not written again", of_before, finished),
        *_claims(prepared, source, studies),
    ]
    table = Table("claim", "found", "expected", "holds", title=f"mimic_lookalike, {environment()['commit']}")
    for claim in claims:
        table.add_row(claim.what, str(claim.found), str(claim.expected), "yes" if claim.holds else "[red]NO[/]")
    console.print(table)
    console.print(f"the last run, from {finished} finished shards on, took {time.time() - started:.0f} s")
    return all(claim.holds for claim in claims)


def _source(source: Path, n_records: int, console: Console) -> list[Study]:
    mark = source / "whole"
    if not mark.exists():
        console.print(f"writing {n_records:,} records below {source}")
        write_lookalike(source, n_records)
        mark.touch()
    return [Study(number) for number in range(n_records)]


def _command(source: Path, data_dir: Path) -> list[str]:
    words = ["prepare", "mimic_iv_ecg", "--source", str(source), "--data-dir", str(data_dir)]
    return [sys.executable, "-m", "ecgclip_jax.cli.main", *words]


def _run_and_kill(source: Path, data_dir: Path, number: signal.Signals, after_shards: int) -> int:
    """Kills a build when it has finished so many shards; returns how many it had in the end."""
    parts = data_dir / "mimic_iv_ecg" / "1.0.0.incomplete" / "parts"
    with subprocess.Popen(_command(source, data_dir), stdout=subprocess.DEVNULL) as build:
        while len(list(parts.glob("*.done.json"))) < after_shards:
            if build.poll() is not None:
                raise SystemExit("the build ended before it could be killed: more records are needed")
            time.sleep(0.05)
        build.send_signal(number)
    return len(list(parts.glob("*.done.json")))


def _claims(prepared: Path, source: Path, studies: Sequence[Study]) -> list[Claim]:
    facts = json.loads((prepared / "cohort.json").read_text())
    rows = {split: pq.read_table(prepared / f"records-{split}.parquet").to_pylist() for split in _present(prepared)}
    stored = [row["record_id"] for of_split in rows.values() for row in of_split]
    kept = [study for study in studies if not study.is_truncated]
    reasons = {outcome: facts["reasons"].get(outcome, {}) for outcome in ("flagged", "dropped")}
    unmeasured = sum(not row["measurement_names"] for of_split in rows.values() for row in of_split)
    return [
        Claim("source records counted", facts["source_rows"], len(studies)),
        Claim("record ids stored, each once", sorted(stored) == sorted(study.study_id for study in kept), True),
        Claim("dropped for a truncated signal", reasons["dropped"], {"truncated": len(studies) - len(kept)}),
        Claim("flagged for gaps", reasons["flagged"].get("missing_samples"), sum(s.has_gap for s in kept)),
        Claim("flagged for empty reports", reasons["flagged"].get("report_empty"), sum(not s.report for s in kept)),
        Claim("records without measurements", unmeasured, sum(not s.is_measured for s in kept)),
        Claim("shards hold what their tables say", waveforms_fit(prepared, source, rows), True),
    ]


def _present(prepared: Path) -> list[str]:
    return [split for split in _SPLITS if (prepared / f"records-{split}.parquet").is_file()]


def waveforms_fit(prepared: Path, source: Path, rows: dict[str, list[dict[str, Any]]], every: int = 97) -> bool:
    """Whether every 97th stored waveform is the file's, lead by lead."""
    builder = tfds.builder_from_directory(str(prepared))
    order = [LEADS.index(lead) for lead in ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")]
    for split, of_split in rows.items():
        waveforms = builder.as_data_source(split=split)
        if len(waveforms) != len(of_split):
            return False
        for i in range(0, len(of_split), every):
            path = source / f"{json.loads(of_split[i]['source_row'])['path']}.dat"
            samples = np.fromfile(path, "<i2").reshape(-1, len(LEADS))[:, order]
            expected = np.where(samples == -32768, -32768, 5 * samples)
            if not np.array_equal(waveforms[i]["ecg_uv"], expected):
                return False
    return True


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--records", type=int, default=N_RECORDS)
    arguments = parser.parse_args()
    raise SystemExit(0 if mimic_lookalike(arguments.folder, Console(), arguments.records) else 1)
