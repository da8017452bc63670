"""WFDB records in several segments, put together as one recording with its gaps.

Format: https://wfdb.io/spec/header.html, "Multi-segment records": a master header names segments and their lengths;
`~` is a gap. In a record of variable layout a first segment of no samples names the signals, and each other segment
holds some of them: a lead that a segment lacks is missing there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import numpy as np

from ecgclip_jax.signal.record import ECGReadError, ECGRecord, ReasonCode
from ecgclip_jax.signal.wfdb_header import age_and_sex

GAP: Final = "~"
MAX_SEGMENTS: Final = 100_000
MAX_GAP_BYTES: Final = 2**30
"""What gaps may take in memory beside four times the samples that are there: a header costs nothing to write."""

ReadSegment = Callable[[str], ECGRecord]
"""Reads the single-segment record of a name beside the master header."""


def is_master(text: str) -> bool:
    """Whether a header's record line says that the record is in segments (`name/3 …`)."""
    first = next((line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")), "")
    slash, number = first.split(None, 1)[0].partition("/")[1:] if first.strip() else ("", "")
    return bool(slash) and number.isdecimal()


def read_segments(text: str, record_id: str, read_segment: ReadSegment) -> ECGRecord:
    """The whole recording of a master header's text; leads in the order in which segments bring them.

    Raises:
        ECGReadError: `header_malformed`, `header_lies` (lengths or rates that contradict each other, a segment in
            segments, gaps too long to be true), `empty` (gaps only), and what reading a segment raises.
    """
    lines = [line.strip() for line in text.splitlines()]
    rate_hz, promised, segments = _master(record_id, [line for line in lines if line and not line.startswith("#")])
    parts: list[tuple[int, ECGRecord]] = []
    start = 0
    for name, n_samples in segments:
        if name != GAP and n_samples:
            part = read_segment(name)
            if part.n_samples != n_samples or abs(part.rate_hz / rate_hz - 1) > 1e-6:
                found = f"{part.n_samples} samples at {part.rate_hz:g} Hz"
                raise _lies(f"{record_id}, segment {name}", f"{n_samples} samples at {rate_hz:g} Hz", found)
            parts.append((start, part))
        start += n_samples
    if promised not in (None, start):
        raise _lies(record_id, f"segments of {promised} samples in all", f"{start}")
    return _joined(record_id, start, parts, tuple(line[1:].strip() for line in lines if line.startswith("#")))


def _joined(record_id: str, n_samples: int, parts: list[tuple[int, ECGRecord]], comments: tuple[str, ...]) -> ECGRecord:
    if not parts:
        raise ECGReadError.because(
            ReasonCode.empty,
            record_id,
            expected="at least one segment with samples",
            found="gaps only",
            remedy="Leave the record out.",
        )
    leads = tuple(dict.fromkeys(lead for _, part in parts for lead in part.leads))
    held = sum(4 * part.n_samples * len(part.leads) for _, part in parts)
    if (needed := 4 * n_samples * len(leads)) > MAX_GAP_BYTES + 4 * held:
        raise _lies(record_id, "gaps in proportion to the samples", f"gaps that make it {needed:,} bytes")
    signal_uv = np.full((n_samples, len(leads)), np.nan, np.float32)
    for start, part in parts:
        columns = [leads.index(lead) for lead in part.leads]
        if len(set(columns)) != len(columns):
            raise _lies(record_id, "each lead once in a segment", f"{', '.join(part.leads)}")
        signal_uv[start : start + part.n_samples, columns] = part.signal_uv
    first = parts[0][1].facts
    age_years, sex = age_and_sex(comments)
    facts = replace(
        first,
        resolution_uv=max(part.facts.resolution_uv for _, part in parts),
        age_years=first.age_years if age_years is None else age_years,
        sex=sex or first.sex,
        comments=(*comments, *(c for c in first.comments if c not in comments)),
        gain_assumed=tuple(dict.fromkeys(lead for _, part in parts for lead in part.facts.gain_assumed)),
        checksum_mismatch=tuple(dict.fromkeys(lead for _, part in parts for lead in part.facts.checksum_mismatch)),
        notes=tuple(dict.fromkeys(note for _, part in parts for note in part.facts.notes)),
    )
    return ECGRecord(record_id, signal_uv, leads, parts[0][1].rate_hz, facts)


def _master(record_id: str, lines: list[str]) -> tuple[float, int | None, list[tuple[str, int]]]:
    """Rate in Hz, samples in all (None: not given), and the segments with their lengths."""
    fields = lines[0].split()
    try:
        n_segments = int(fields[0].partition("/")[2])
        rate_hz = float(fields[2].partition("/")[0])
        promised = int(fields[3]) if len(fields) > 3 else None
        segments = [(words[0], int(words[1])) for words in (line.split() for line in lines[1:])]
        if n_segments > MAX_SEGMENTS or not 0 < rate_hz < np.inf or min((n for _, n in segments), default=0) < 0:
            raise ValueError("out of range")
    except (IndexError, ValueError) as error:
        raise ECGReadError.because(
            ReasonCode.header_malformed,
            record_id,
            expected="'NAME/SEGMENTS SIGNALS RATE SAMPLES' and lines 'SEGMENT SAMPLES'",
            found=f"{lines[0][:60]!r} … ({error})",
            remedy="Take the header from the cohort's original distribution, or leave the record out.",
        ) from None
    if n_segments != len(segments):
        raise _lies(record_id, f"{n_segments} segments as its record line promises", f"{len(segments)}")
    return rate_hz, promised or None, segments


def _lies(where: str, expected: str, found: str) -> ECGReadError:
    return ECGReadError.because(
        ReasonCode.header_lies,
        where,
        expected=expected,
        found=found,
        remedy="The header contradicts its segments: download the record again, or leave it out.",
    )
