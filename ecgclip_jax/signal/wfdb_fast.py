"""A direct reader for WFDB format 16 and the PhysioNet Challenge's `16+24` `.mat`, the formats of large ECG cohorts.

It does what `wfdb.rdrecord` does for them, plus the checks an unknown file needs (sizes against the header's
promise, checksums, no way out of the source's folder), in a few percent of its time. Other formats go through the
wfdb package: `ecgclip_jax.signal.readers`.
"""

from __future__ import annotations

import struct
from typing import Final

import numpy as np
from jaxtyping import Float32, Int16

from ecgclip_jax.signal.leads import canonical_lead
from ecgclip_jax.signal.paths import MAX_HEADER_BYTES, MAX_SIGNAL_BYTES, member, read_regular_file
from ecgclip_jax.signal.record import ConverterUnits, ECGReadError, ECGRecord, ReasonCode, SourceFacts
from ecgclip_jax.signal.wfdb_header import Header, SignalLine, age_and_sex, parse_header

MAT_V4_HEADER_BYTES: Final = 24
"""20 bytes and the variable's name `val\\0`; int16 samples follow, leads running fastest as in format 16."""
_MAT_V4_INT16: Final = 30
_ROWS_AT_ONCE: Final = 100


def read_header_text(folder: str, name: str, root: str) -> str:
    """The header `name` in the resolved `folder`, in whatever encoding it is."""
    content = read_regular_file(member(folder, name, root), max_bytes=MAX_HEADER_BYTES)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def read_header(folder: str, name: str, root: str) -> Header:
    """Parses the header `name` in the resolved `folder`; see `parse_header` for its errors."""
    return parse_header(read_header_text(folder, name, root), name)


def reads_directly(header: Header) -> bool:
    """Whether every signal is format 16, one sample per frame and unskewed."""
    formats = {line.format for line in header.signals}
    return all(form.number == 16 and form.samples_per_frame == 1 and form.skew == 0 for form in formats)


def read_signals(header: Header, folder: str, root: str, record_id: str) -> ECGRecord:
    """Reads the signals of a header for which `reads_directly` holds.

    Args:
        header: parsed header.
        folder: resolved folder of the header.
        root: resolved folder nothing may leave.
        record_id: name of the record.

    Raises:
        ECGReadError: `missing_file`, `empty`, `truncated`, `header_lies`, `header_malformed`, `unit_unknown`,
            `path_outside_source`, `unsupported_format`, `unreadable`.
    """
    files: dict[str, list[int]] = {}
    for column, line in enumerate(header.signals):
        files.setdefault(line.file_name, []).append(column)
    parts, mismatches = [], set()
    for name, columns in files.items():
        lines = [header.signals[column] for column in columns]
        parts.append(_read_samples(member(folder, name, root), lines, header.n_samples))
        mismatches |= {columns[n] for n in _checksum_mismatches(parts[-1], lines)}
    if len({part.shape[0] for part in parts}) > 1:
        raise ECGReadError.because(
            ReasonCode.header_lies,
            record_id,
            expected="signal files of equal length",
            found=f"{[part.shape[0] for part in parts]} samples in {list(files)}",
            remedy="Download the record again, or leave it out.",
        )
    order = [column for columns in files.values() for column in columns]
    raw = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
    if order != sorted(order):
        raw = np.ascontiguousarray(raw[:, np.argsort(order)])
    baseline = tuple([line.baseline for line in header.signals])
    resolution_uv = tuple([line.gain.resolution_uv for line in header.signals])
    return assemble(header, ConverterUnits(raw, baseline, resolution_uv), record_id, mismatches)


def assemble(
    header: Header,
    samples: Float32[np.ndarray, "time lead"] | ConverterUnits,
    record_id: str,
    mismatches: set[int],
) -> ECGRecord:
    """Names the columns, leaves out signals that are no voltage, and gathers what the header states.

    Args:
        header: parsed header.
        samples: one column per signal of the header; columns in unknown units hold anything.
        record_id: name of the record.
        mismatches: columns whose checksum does not fit.

    Raises:
        ECGReadError: `unit_unknown` for a standard lead in a unit that is no voltage.
    """
    names, kept, notes = [], [], list(header.notes)
    for column, line in enumerate(header.signals):
        lead = canonical_lead(line.name)
        if line.gain.microvolts is not None:
            names.append(lead or line.name or f"signal {column + 1}")
            kept.append(column)
        elif lead is None:
            notes.append(f"signal {line.name or column + 1} in {line.gain.unit} left out: no voltage")
        else:
            raise ECGReadError.because(
                ReasonCode.unit_unknown,
                f"{record_id}, lead {lead}",
                expected="a voltage: mV, uV, µV, V or nV",
                found=repr(line.gain.unit),
                remedy="Find out the unit and correct the header; it is never guessed.",
            )
    if not kept:
        raise ECGReadError.because(
            ReasonCode.no_known_lead,
            record_id,
            expected="at least one voltage",
            found=f"signals in {sorted({line.gain.unit for line in header.signals})}",
            remedy="This is no ECG: leave it out.",
        )
    if len(kept) < len(header.signals):
        samples = samples.of_leads(kept) if isinstance(samples, ConverterUnits) else samples[:, kept]
    age_years, sex = age_and_sex(header.comments)
    facts = SourceFacts(
        format=_format_name(header.signals[0]),
        resolution_uv=max([header.signals[column].gain.resolution_uv for column in kept]),
        age_years=age_years,
        sex=sex,
        comments=header.comments,
        gain_assumed=tuple([n for n, c in zip(names, kept, strict=True) if header.signals[c].gain.assumed]),
        checksum_mismatch=tuple([n for n, c in zip(names, kept, strict=True) if c in mismatches]),
        notes=tuple(notes),
    )
    return ECGRecord(record_id, samples, tuple(names), header.rate_hz, facts)


def _format_name(line: SignalLine) -> str:
    offset = f"+{line.format.byte_offset}" if line.format.byte_offset else ""
    return f"wfdb{line.format.number}{offset}"


def _read_samples(path: str, lines: list[SignalLine], n_samples: int | None) -> Int16[np.ndarray, "time lead"]:
    """Converter units as stored, one column per signal of this file."""
    offset, n_leads = lines[0].format.byte_offset, len(lines)
    if len({line.format for line in lines}) > 1:
        raise ECGReadError.because(
            ReasonCode.header_malformed,
            path,
            expected="one sample format per signal file",
            found=f"{sorted({_format_name(line) for line in lines})}",
            remedy="Correct the header.",
        )
    expected = None if n_samples is None else offset + 2 * n_leads * n_samples
    content = read_regular_file(path, max_bytes=MAX_SIGNAL_BYTES, expected_bytes=expected)
    if offset == MAT_V4_HEADER_BYTES and path.endswith(".mat"):
        _check_mat_header(path, content, n_leads, n_samples)
    available, rest = divmod(len(content) - offset, 2 * n_leads)
    if rest or available <= 0:
        raise ECGReadError.because(
            ReasonCode.truncated,
            path,
            expected=f"whole frames of {n_leads} 2-byte samples after {offset} bytes",
            found=f"{len(content):,} bytes",
            remedy="Download it again.",
        )
    return np.frombuffer(content, "<i2", available * n_leads, offset).reshape(available, n_leads)


def _check_mat_header(path: str, content: bytes, n_leads: int, n_samples: int | None) -> None:
    """Compares what a MATLAB level 4 file says of itself with the record's header."""
    found = struct.unpack_from("<5i", content) if len(content) >= MAT_V4_HEADER_BYTES else ()
    columns = found[2] if n_samples is None and found else n_samples
    if found != (_MAT_V4_INT16, n_leads, columns, 0, 4) or content[20:24] != b"val\0":
        raise ECGReadError.because(
            ReasonCode.header_lies,
            path,
            expected=f"a MATLAB level 4 matrix val, int16, {n_leads} × {n_samples or 'any'}",
            found=f"the header words {found}",
            remedy="Header and .mat belong to different records, or another program saved the .mat: export it anew.",
        )


def _checksum_mismatches(raw: Int16[np.ndarray, "time lead"], lines: list[SignalLine]) -> list[int]:
    """Columns whose 16-bit sum differs from the header's (compared modulo 2^16: headers hold either sign)."""
    n_leads = raw.shape[1]
    body = raw.shape[0] // _ROWS_AT_ONCE * _ROWS_AT_ONCE
    # Long rows vectorise where twelve columns would not; int16 wraps as the checksum does.
    rows = raw[:body].reshape(-1, _ROWS_AT_ONCE * n_leads).sum(axis=0, dtype=np.int16).reshape(-1, n_leads)
    sums = np.concatenate([rows, raw[body:]]).sum(axis=0, dtype=np.int16).tolist()
    return [
        column
        for column, (line, total) in enumerate(zip(lines, sums, strict=True))
        if line.checksum is not None and (line.checksum - total) % 65536
    ]
