"""How the stored signals of a cohort measure, on a sample, and the worst of what was flagged.

Flags are counted over all ECGs elsewhere; what needs the waveform itself is measured on a fixed sample, so that an
audit costs seconds and not a second pass over a million ECGs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
import pyarrow as pa
from jaxtyping import Int16

from ecgclip_jax.signal import lead_passes
from ecgclip_jax.signal.quality import find, qrs_peak_to_peak_uv
from ecgclip_jax.spec.signal import STORED_LEADS, STORED_SAMPLES

SAMPLED: Final = 1000
CANDIDATES: Final = 10
"""Flagged ECGs per flag of which the worst is shown; flags are common, and one page of each is enough."""
QUANTILES: Final = (0.0, 0.01, 0.25, 0.5, 0.75, 0.99, 1.0)


@dataclass(frozen=True, slots=True)
class StoredSplit:
    """The shards of one split, in order, with their numbers of ECGs."""

    name: str
    shards: tuple[tuple[Path, int], ...]

    def read(self, rows: Sequence[int]) -> Iterator[tuple[int, Int16[np.ndarray, "5000 12"]]]:
        """Waveforms by row number over all shards."""
        from array_record.python.array_record_module import ArrayRecordReader
        from tensorflow_datasets.proto import tf_example_pb2

        start = 0
        for path, n in self.shards:
            here = [row for row in rows if start <= row < start + n]
            if here:
                reader = ArrayRecordReader(str(path))
                for row, content in zip(here, reader.read([row - start for row in here]), strict=True):
                    stored = tf_example_pb2.Example.FromString(content).features.feature["ecg_uv"].bytes_list.value[0]
                    yield row, np.frombuffer(stored, "<i2").reshape(STORED_SAMPLES, len(STORED_LEADS))
                reader.close()
            start += n


def signal_audit(splits: Sequence[StoredSplit], flags: pa.Table, *, examples: bool) -> dict[str, Any]:
    """Quantiles of what is measured on a sample, and the worst flagged ECGs.

    Args:
        splits: of the dataset.
        flags: columns `split`, `quality_flags`, `record_id`, `window_index` of every stored window, split by split.
        examples: whether single ECGs may be named (open cohorts only).
    """
    sizes = [sum(n for _, n in split.shards) for split in splits]
    chosen = np.sort(np.random.default_rng(0).permutation(sum(sizes))[:SAMPLED])
    measured: list[dict[str, float]] = []
    for split, first in zip(splits, np.cumsum([0, *sizes]), strict=False):
        rows = chosen[(chosen >= first) & (chosen < first + sum(n for _, n in split.shards))] - first
        measured += [_measures(ecg_uv) for _, ecg_uv in split.read(rows.tolist())]
    return {
        "sampled": len(measured),
        "quantile_levels": list(QUANTILES),
        "quantiles": {name: _quantiles([m[name] for m in measured]) for name in measured[0]} if measured else {},
        "examples": list(_worst(splits, flags)) if examples else [],
    }


def _measures(ecg_uv: Int16[np.ndarray, "5000 12"]) -> dict[str, float]:
    """What is told of one ECG; NaN where it cannot be told."""
    by_lead = np.ascontiguousarray(ecg_uv.T)
    n_present, lowest, _, highest = lead_passes.extremes(by_lead, by_lead.shape[1])
    qrs_uv = qrs_peak_to_peak_uv(by_lead)
    known_qrs_uv = qrs_uv[~np.isnan(qrs_uv)].tolist()
    return {
        "missing_percent": float(100 * (ecg_uv.size - n_present.sum()) / ecg_uv.size),
        "lowest_uv": float(lowest.min()),
        "highest_uv": float(highest.max()),
        "qrs_peak_to_peak_uv": median(known_qrs_uv) if known_qrs_uv else math.nan,
        "einthoven_residual_rms_uv": _einthoven_residual_uv(by_lead[:3]),
    }


def _einthoven_residual_uv(limb: Int16[np.ndarray, "3 time"]) -> float:
    """Standard deviation of I + III - II where all three are present; NaN where they never are."""
    n, sums, products = lead_passes.moments(limb, np.ones(3, bool))
    signs = np.array([1, -1, 1])
    return math.sqrt(max(int(n * (signs @ products @ signs) - (signs @ sums) ** 2), 0)) / n if n else math.nan


def _quantiles(values: Sequence[float]) -> list[float]:
    known = np.asarray(values)[~np.isnan(values)]
    return [round(float(q), 2) for q in np.quantile(known, QUANTILES)] if len(known) else []


def _worst(splits: Sequence[StoredSplit], flags: pa.Table) -> Iterator[dict[str, Any]]:
    """Per flag that is measured on the signal: of some ECGs that have it, the one that has most of it."""
    rows_of: dict[str, list[tuple[str, int, int]]] = {}
    next_row: dict[str, int] = {}
    columns = (flags["split"].to_pylist(), flags["quality_flags"].to_pylist())
    for place, (split, of_row) in enumerate(zip(*columns, strict=True)):
        row = next_row.get(split, 0)
        next_row[split] = row + 1
        for flag in of_row:
            rows_of.setdefault(flag, []).append((split, row, place))
    by_name = {split.name: split for split in splits}
    for flag, places in sorted(rows_of.items()):
        picked = places[:: max(len(places) // CANDIDATES, 1)][:CANDIDATES]
        found = []
        for split, row, place in picked:
            for _, ecg_uv in by_name[split].read([row]):
                found += [(f.value, f.message, split, row, place) for f in find(ecg_uv) if f.flag == flag]
        if not found:  # a flag of the file, not of the signal
            continue
        # For an amplitude the faintest is as bad as the largest; its logarithm's distance from 1 mV tells.
        worst = max(found, key=lambda f: abs(np.log(max(f[0], 1e-9))) if flag == "amplitude_suspect_unit" else f[0])
        _, message, split, row, place = worst
        yield {
            "flag": flag,
            "message": message,
            "split": split,
            "row": row,
            "record_id": flags["record_id"][place].as_py(),
            "window_index": flags["window_index"][place].as_py(),
        }
