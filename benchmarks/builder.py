"""Building a cohort from WFDB format 16: our builder on all cores against the loop everybody writes, in one process.

The source is a generated MIMIC-IV-ECG look-alike (12 leads × 5,000 samples, folders and tables as published). The peer
reads with wfdb.rdrecord and writes bare microvolts with ArrayRecord's default options: no labels, no report, no audit,
no tables, no resumption. Ours does all of that, and its rate counts everything from the tables to the finished folder.
Before anything is timed, what our builder stored is compared with the files. The builds follow upon one another in one
process, as the peer's loops do, so that neither side's imports count. The full form takes 12 GB below TMPDIR: where
they are more than the page cache holds, the disk is what is measured, so give it a file system in memory.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow.parquet as pq

from benchmarks.common import Arm, Report, main, measure
from tfds_builders.common.build import build
from tfds_builders.common.cohort import SMALLEST, Compression
from tfds_builders.mimic_iv_ecg.cohort import from_source
from tfds_builders.mimic_iv_ecg.make_dummy_data import write_lookalike

FASTEST: Final[Compression] = "uncompressed"
TARGET_PER_S: Final = 1_500
TARGET_RATIO: Final = 10
_RECORDS, _QUICK_RECORDS, _PEER_RECORDS = 50_000, 1_500, 300
_SPLITS = ("train", "validation", "test")


def _build(source: Path, data_dir: Path, workers: int | None, compression: Compression = SMALLEST) -> Path:
    """The finished folder, written anew."""
    shutil.rmtree(data_dir, ignore_errors=True)
    cohort = from_source(source, data_dir / "downloads", compression=compression)
    return build(cohort, data_dir, workers=workers).folder


def _megabytes(folder: Path) -> float:
    return round(sum(path.stat().st_size for path in folder.glob("*.array_record*")) / 1e6, 1)


def _peer(paths: Sequence[Path], target: Path) -> None:
    """wfdb.rdrecord and a default ArrayRecord write."""
    import wfdb  # here, not above: our builder's workers import this module again, as their main one
    from array_record.python.array_record_module import ArrayRecordWriter

    writer = ArrayRecordWriter(str(target), "")
    for path in paths:
        signal_mv = wfdb.rdrecord(str(path)).p_signal
        writer.write(np.nan_to_num(np.rint(signal_mv * 1000), nan=-32768).astype(np.int16).tobytes())
    writer.close()


def run(quick: bool) -> Report:
    """Times whole builds and the peer's loop over a part of the same files.

    Raises:
        SystemExit: what was stored is not what the files hold.
    """
    from benchmarks.mimic_lookalike import waveforms_fit

    n_records = _QUICK_RECORDS if quick else _RECORDS
    with tempfile.TemporaryDirectory() as temporary:
        source, data_dir = Path(temporary) / "source", Path(temporary) / "data"
        studies = write_lookalike(source, n_records)
        whole = [source / study.path for study in studies if not study.is_truncated][:_PEER_RECORDS]
        folder = _build(source, data_dir, None)
        rows = {split: pq.read_table(folder / f"records-{split}.parquet").to_pylist() for split in _SPLITS}
        if not waveforms_fit(folder, source, rows):
            raise SystemExit("what the builder stored differs from the files: no timing before they agree")
        sizes: dict[str, float] = {}

        def sized(compression: Compression) -> None:
            sizes[compression] = _megabytes(_build(source, data_dir, None, compression))

        _peer(whole, Path(temporary) / "peer")
        timings = measure(
            [
                Arm("ecgclip prepare, all cores", lambda: sized(SMALLEST), n_records),
                Arm(f"the same, {FASTEST}", lambda: sized(FASTEST), n_records),
                Arm("ecgclip prepare, one process", lambda: _build(source, data_dir, 0), n_records),
                Arm("wfdb.rdrecord + ArrayRecord", lambda: _peer(whole, Path(temporary) / "peer"), len(whole)),
            ],
            quick=quick,
            rounds=3 if quick else 2,
            warm=not quick,
        )
    fastest, peer = timings[1], timings[-1]
    return Report(
        name="builder",
        item="record",
        timings=timings,
        notes=(
            f"warm page cache; ArrayRecord options group_size:1,{SMALLEST} unless named, the peer's are the defaults",
            f"targets on two cores: at least {TARGET_PER_S:,} records/s, at least {TARGET_RATIO} times the peer",
        ),
        facts={
            "records": n_records,
            "of these read by the peer": len(whole),
            f"{FASTEST}, times the peer": round(peer.median_s / fastest.median_s, 2),
            **{f"{name}, MB": size for name, size in sizes.items()},
        },
    )


if __name__ == "__main__":
    main(run, __doc__)
