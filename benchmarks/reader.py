"""Reading WFDB format 16: our reader against wfdb.rdrecord, both to physical units, over the same records.

Without --records a folder of records is generated as PTB-XL has them (12 leads × 5,000 samples, 500 Hz, 1 µV per unit).
Ours does more per record than the peer: it compares every lead's checksum and the file's size with the header and
resolves symlinks against the source's folder; the peer does none of that. Before anything is timed every record is read
by both and compared: equal to 1 µV, or the benchmark stops.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import wfdb

from benchmarks.common import Arm, Report, main, measure
from ecgclip_jax.signal.readers import read_ecg
from ecgclip_jax.spec.signal import LEADS_12

TARGET_RATIO: Final = 20
_RECORDS: Final = 100
_TOLERANCE_UV: Final = 1.0


def write_records(folder: Path, n_records: int) -> list[Path]:
    """Records with noise and a missing sample here and there, as paths without suffix."""
    random = np.random.default_rng(0)
    paths = []
    for number in range(n_records):
        raw = np.clip(random.normal(0, 300, (5000, 12)), -3000, 3000).astype(np.int16)
        if number % 10 == 0:
            raw[random.integers(5000, size=20), random.integers(12, size=20)] = -32768
        name = f"{number:05d}_hr"
        wfdb.wrsamp(
            name,
            fs=500,
            units=["mV"] * 12,
            sig_name=list(LEADS_12),
            d_signal=raw,
            fmt=["16"] * 12,
            adc_gain=[1000.0] * 12,
            baseline=[0] * 12,
            write_dir=str(folder),
        )
        paths.append(folder / name)
    return paths


def largest_difference_uv(paths: list[Path]) -> float:
    """Largest difference between the two readers; gaps must be the same.

    Raises:
        AssertionError: leads or gaps differ.
    """
    largest = 0.0
    for path in paths:
        ours, peer = read_ecg(path), wfdb.rdrecord(str(path))
        assert [lead.upper() for lead in ours.leads] == [lead.upper() for lead in peer.sig_name], path
        peer_uv = peer.p_signal * 1000
        assert np.array_equal(np.isnan(ours.signal_uv), np.isnan(peer_uv)), path
        largest = max(largest, float(np.nanmax(np.abs(ours.signal_uv - peer_uv))))
    return largest


def _one_by_one(read: Callable[[str], object], paths: list[Path]) -> None:
    """Reads and drops, as a loader does."""
    for path in paths:
        read(str(path))


def run(quick: bool, records: Path | None = None) -> Report:
    """Times both readers.

    Args:
        quick: fewer and shorter rounds.
        records: a folder searched for format-16 headers in mV; by default records are generated.
    """
    with tempfile.TemporaryDirectory() as temporary:
        if records is None:
            paths = write_records(Path(temporary), _RECORDS)
        else:
            paths = [path.with_suffix("") for path in sorted(records.rglob("*.hea"))[:_RECORDS]]
        difference_uv = largest_difference_uv(paths)
        if difference_uv > _TOLERANCE_UV:
            raise SystemExit(f"the readers differ by {difference_uv} µV: no timing before they agree")
        timings = measure(
            [
                Arm("read_ecg", lambda: _one_by_one(lambda path: read_ecg(path).signal_uv, paths), len(paths)),
                Arm("wfdb.rdrecord", lambda: _one_by_one(wfdb.rdrecord, paths), len(paths)),
            ],
            quick=quick,
        )
    return Report(
        name="reader",
        item="record",
        timings=timings,
        notes=(
            "warm page cache, one core; read_ecg also checks checksums, sizes and links, wfdb.rdrecord does not",
            f"target: at least {TARGET_RATIO} times",
        ),
        facts={"records": len(paths), "largest difference (µV)": difference_uv},
    )


if __name__ == "__main__":
    import argparse
    import sys

    own = argparse.ArgumentParser(add_help=False)
    own.add_argument("--records", type=Path, help="folder of real format-16 records instead of generated ones")
    known, rest = own.parse_known_args(sys.argv[1:])
    main(partial(run, records=known.records), __doc__, rest)
