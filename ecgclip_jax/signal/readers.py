"""`read_ecg`: one door for every file format an ECG arrives in.

WFDB records are read here: format 16 and the Challenge's `.mat` directly (`wfdb_fast`), every other sample format by
the wfdb package. Records in several segments are put together. Whatever is wrong with a file ends in an `ECGReadError`
with a reason code; nothing is unpickled, no memory is allocated from what a header promises, and no file outside the
source's folder is opened.
"""

from __future__ import annotations

import os
from functools import partial
from typing import Final

import numpy as np

from ecgclip_jax.signal.paths import MAX_SIGNAL_BYTES, member, record_folder, regular_file_size, unreadable
from ecgclip_jax.signal.record import ECGReadError, ECGRecord, ReasonCode
from ecgclip_jax.signal.wfdb_fast import assemble, read_header, read_header_text, read_signals, reads_directly
from ecgclip_jax.signal.wfdb_header import Header, parse_header
from ecgclip_jax.signal.wfdb_segments import is_master, read_segments

_BITS_PER_SAMPLE: Final = {8: 8, 16: 16, 24: 24, 32: 32, 61: 16, 80: 8, 160: 16, 212: 12, 310: 32 / 3, 311: 32 / 3}
"""Uncompressed sample formats (https://wfdb.io/spec/signal.html)."""
_FLAC_BITS: Final = {508: 8, 516: 16, 524: 24}
_MOST_FLAC_COMPRESSION: Final = 200
"""ECGs compress 2- to 4-fold; a file that claims to hold 200 times its size is a bomb or a lie."""
_SUPPORTED: Final = "a WFDB record: its .hea, .dat or .mat, or its path without suffix"


def read_ecg(path: str | os.PathLike[str], *, root: str | os.PathLike[str] | None = None) -> ECGRecord:
    """Reads one ECG.

    Args:
        path: a WFDB record, as its `.hea`, its `.dat` or `.mat`, or the path without suffix (as in PTB-XL's table).
        root: the source's folder, which neither the path nor a name or link inside the record may leave; by default
            the record's own folder.

    Returns:
        The record as it stands in the file: microvolts, source rate, every voltage lead, `record_id` the file's name.

    Raises:
        ECGReadError: with the reason code and a sentence of what was expected, what was found and what to do.
    """
    folder, name, real_root = record_folder(path, root)
    stem, suffix = os.path.splitext(name)
    if suffix.lower() not in (".hea", ".dat", ".mat"):
        stem, suffix = name, ""
    try:
        text = read_header_text(folder, stem + ".hea", real_root)
    except ECGReadError:
        if not os.path.lexists(os.path.join(folder, stem + ".hea")):
            raise _no_header(folder, name, stem, suffix) from None
        raise
    if is_master(text):
        return read_segments(text, stem, partial(_read_segment, folder, real_root))
    return _read_single(parse_header(text, stem + ".hea"), folder, real_root, stem)


def _read_segment(folder: str, root: str, name: str) -> ECGRecord:
    """One segment; one that is itself in segments, which the format forbids, fails in its header."""
    return _read_single(read_header(folder, name + ".hea", root), folder, root, name)


def _read_single(header: Header, folder: str, real_root: str, stem: str) -> ECGRecord:
    if reads_directly(header):
        return read_signals(header, folder, real_root, stem)
    return _read_with_wfdb(header, folder, real_root, stem)


def _no_header(folder: str, name: str, stem: str, suffix: str) -> ECGReadError:
    known = suffix or not os.path.isfile(os.path.join(folder, name))
    if not known or suffix.lower() == ".mat":
        return ECGReadError.because(
            ReasonCode.unsupported_format,
            name,
            expected=_SUPPORTED,
            found="a .mat without a WFDB header beside it" if suffix else "a file of another kind",
            remedy="Convert it to WFDB, or read it yourself into an ECGRecord.",
        )
    return ECGReadError.because(
        ReasonCode.missing_file,
        os.path.join(folder, name),
        expected=f"the header {stem}.hea",
        found="none of this name",
        remedy="Complete the download, or leave the record out.",
    )


def _read_with_wfdb(header: Header, folder: str, root: str, stem: str) -> ECGRecord:
    """Any sample format the wfdb package knows; checksums are not compared there."""
    _check_promise(header, folder, root)
    import wfdb  # here, because it pulls in pandas and network clients that format 16 never needs

    try:
        physical = wfdb.rdrecord(os.path.join(folder, stem)).p_signal
    except Exception as error:  # whatever a parser throws at hostile bytes is one thing to the caller
        raise unreadable(os.path.join(folder, stem), f"wfdb: {type(error).__name__}: {error}") from None
    if physical is None or physical.shape[1] != len(header.signals) or not len(physical):
        raise unreadable(stem, f"signals of shape {None if physical is None else physical.shape}")
    factors = [line.gain.microvolts or np.nan for line in header.signals]
    return assemble(header, (physical * factors).astype(np.float32), stem, set())


def _check_promise(header: Header, folder: str, root: str) -> None:
    """Sizes before anything is allocated: the wfdb package trusts the header."""
    samples: dict[str, float] = {}
    for line in header.signals:
        bits = _BITS_PER_SAMPLE.get(line.format.number) or _FLAC_BITS.get(line.format.number, 0)
        if not bits:
            raise ECGReadError.because(
                ReasonCode.unsupported_format,
                line.file_name,
                expected=f"a WFDB sample format of {sorted(_BITS_PER_SAMPLE | _FLAC_BITS)}",
                found=f"format {line.format.number}",
                remedy="Convert the record with WFDB's xform, or leave it out.",
            )
        per_frame = max(line.format.samples_per_frame, 1)
        samples[line.file_name] = samples.get(line.file_name, 0) + bits / 8 * per_frame
    for name, bytes_per_frame in samples.items():
        size = regular_file_size(member(folder, name, root))
        compressed = any(line.format.number in _FLAC_BITS for line in header.signals if line.file_name == name)
        holds = size * (_MOST_FLAC_COMPRESSION if compressed else 1)
        promised = (header.n_samples or 1) * bytes_per_frame
        if holds < int(promised) or size > MAX_SIGNAL_BYTES:
            raise ECGReadError.because(
                ReasonCode.header_lies if compressed or size > MAX_SIGNAL_BYTES else ReasonCode.truncated,
                name,
                expected=f"{promised:,.0f} bytes of samples by its header",
                found=f"a file of {size:,}",
                remedy="Download it again; if it stays so, correct the header or leave the record out.",
            )
