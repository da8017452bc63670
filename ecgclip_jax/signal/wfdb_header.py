"""WFDB header files, parsed with patience for how real cohorts write them and with none for what cannot be true.

Format: https://wfdb.io/spec/header.html (record line, one line per signal, `#` comments). Tolerated beyond it,
because published cohorts hold it: a record name that carries `.mat` or `.dat` (Challenge 2020, Georgia), units in
any case (`mv`), a baseline or sample count written as `5000.0`, a rate that is missing (the format's 250 Hz), fields
left out before the lead name, blank lines, any text encoding.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, NamedTuple

from ecgclip_jax.signal.record import ECGReadError, ReasonCode, Sex

DEFAULT_GAIN: Final = 200.0
"""Converter units per physical unit where a header gives none or 0 (header.html, "ADC gain")."""
DEFAULT_RATE_HZ: Final = 250.0
"""Where a header gives no sampling frequency (header.html)."""
_SANE_RESOLUTION_UV: Final = (1e-6, 1e5)
"""Microvolts per unit: outside lies no converter ever built (24-bit front ends reach 0.02 µV, MIMIC has 5 µV)."""

_LARGEST_BASELINE: Final = 2**31

_MICROVOLTS: Final = {
    "nv": 1e-3,
    "uv": 1.0,
    "µv": 1.0,
    "μv": 1.0,
    "microvolt": 1.0,
    "mv": 1e3,
    "millivolt": 1e3,
    "v": 1e6,
}
_FORMAT: Final = re.compile(r"(\d+)(?:x(\d+))?(?::(\d+))?(?:\+(\d+))?")
_GAIN: Final = re.compile(
    r"([-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?)(?:\(([-+]?\d+)(?:\.0*)?\))?(?:/(\S*))?", re.IGNORECASE
)
_INTEGER: Final = re.compile(r"[-+]?\d+")
_RECORD_FILE_SUFFIX: Final = re.compile(r"\.(?:mat|dat|hea)$", re.IGNORECASE)
_FACT: Final = re.compile(r"^<?\s*(age|sex)\s*>?\s*[:=]\s*(.*?)\s*$", re.IGNORECASE)
_MITDB_FACTS: Final = re.compile(r"^(\d{1,3})\s+([MF])\b")


class SampleFormat(NamedTuple):
    """Second field of a signal line, as `16x1:0+24`."""

    number: int
    samples_per_frame: int = 1
    skew: int = 0
    byte_offset: int = 0


class Gain(NamedTuple):
    """Third field of a signal line, as `1000.0(0)/mV`; `microvolts` is None where the unit is not a voltage."""

    units_per_physical: float
    baseline: int | None
    unit: str
    microvolts: float | None
    resolution_uv: float
    """Microvolts per converter unit; NaN where the unit is not a voltage."""
    assumed: bool
    problem: str = ""
    """Why no converter can have this gain; empty if one can."""


class SignalLine(NamedTuple):  # a named tuple: a frozen dataclass takes four times as long to make
    """One signal of a record. `checksum` is None where the header gives none."""

    file_name: str
    format: SampleFormat
    gain: Gain
    baseline: int
    checksum: int | None
    name: str


@dataclass(frozen=True, slots=True)
class Header:
    """A parsed header; `n_samples` is None where it is not given."""

    rate_hz: float
    n_samples: int | None
    signals: tuple[SignalLine, ...]
    comments: tuple[str, ...]
    notes: tuple[str, ...] = field(default=())


def _malformed(where: object, expected: str, found: str) -> ECGReadError:
    return ECGReadError.because(
        ReasonCode.header_malformed,
        where,
        expected=expected,
        found=found,
        remedy="Take the header from the cohort's original distribution, or leave the record out.",
    )


def _lies(where: object, expected: str, found: str) -> ECGReadError:
    return ECGReadError.because(
        ReasonCode.header_lies,
        where,
        expected=expected,
        found=found,
        remedy="The header contradicts itself or what is possible: correct it, or leave the record out.",
    )


@lru_cache(maxsize=4096)
def _parse_format(token: str) -> SampleFormat | None:
    match = _FORMAT.fullmatch(token)
    if match is None or len(token) > 40:
        return None
    number, per_frame, skew, offset = match.groups()
    return SampleFormat(int(number), int(per_frame or 1), int(skew or 0), int(offset or 0))


@lru_cache(maxsize=65536)
def _parse_gain(token: str) -> Gain | None:
    match = _GAIN.fullmatch(token)
    if match is None or len(token) > 80:
        return None
    number, baseline, unit = match.groups()
    gain, unit = float(number) or DEFAULT_GAIN, unit or "mV"
    microvolts = _MICROVOLTS.get(unit.lower())
    resolution_uv = math.nan if microvolts is None else microvolts / gain
    low, high = _SANE_RESOLUTION_UV
    problem = ""
    if gain < 0 or not math.isfinite(gain):
        problem = "a positive gain"
    elif microvolts is not None and not low <= resolution_uv <= high:
        problem = f"a gain that makes {low:g} to {high:g} µV per unit"
    return Gain(
        units_per_physical=gain,
        baseline=None if baseline is None else int(baseline),
        unit=unit,
        microvolts=microvolts,
        resolution_uv=resolution_uv,
        assumed=float(number) == 0,
        problem=problem,
    )


_NO_GAIN: Final = Gain(DEFAULT_GAIN, None, "mV", 1e3, 1e3 / DEFAULT_GAIN, assumed=True)


def _parse_signal(where: object, number: int, line: str) -> SignalLine:
    fields = line.split(None, 8)
    sample_format = _parse_format(fields[1]) if len(fields) > 1 else None
    if sample_format is None:
        raise _malformed(f"{where}, signal {number}", "a signal line 'FILE FORMAT GAIN … NAME'", repr(line[:80]))
    gain, next_field = _NO_GAIN, 2
    if len(fields) > 2 and (parsed := _parse_gain(fields[2])) is not None:
        gain, next_field = parsed, 3
    elif len(fields) > 3:
        raise _malformed(f"{where}, signal {number}", "a gain such as 1000(0)/mV", repr(fields[2][:80]))
    if gain.problem:
        raise _lies(f"{where}, signal {number}", gain.problem, fields[2])
    integers = _leading_integers(fields[next_field:8])
    adc_zero = integers[1] if len(integers) > 1 else 0
    baseline = adc_zero if gain.baseline is None else gain.baseline
    if not -_LARGEST_BASELINE <= baseline <= _LARGEST_BASELINE:
        raise _lies(f"{where}, signal {number}", "a baseline of at most 32 bits", str(baseline)[:40])
    return SignalLine(
        file_name=fields[0],
        format=sample_format,
        gain=gain,
        baseline=baseline,
        checksum=integers[3] if len(integers) > 3 else None,
        name=" ".join(fields[next_field + len(integers) :]),
    )


def _leading_integers(fields: list[str]) -> list[int]:
    """Resolution, zero, initial value, checksum and block size, as many as there are; what follows is the name."""
    try:
        return list(map(int, fields))
    except ValueError:
        count = next(n for n, field in enumerate(fields) if len(field) > 20 or not _INTEGER.fullmatch(field))
        return list(map(int, fields[:count]))


def _whole_number(token: str) -> int | None:
    """`5000` or `5000.0`; None for anything else."""
    head, _, tail = token.partition(".")
    return int(head) if head.isdecimal() and head.isascii() and len(head) < 20 and not tail.strip("0") else None


def _parse_record_line(where: object, line: str) -> tuple[int, float, int | None, tuple[str, ...]]:
    """Number of signals, rate in Hz, number of samples, notes."""
    fields = line.split()
    name, slash, n_segments = fields[0].partition("/")
    if slash and n_segments.isdecimal():
        raise ECGReadError.because(
            ReasonCode.unsupported_format,
            where,
            expected="a record in one segment",
            found=f"a multi-segment record of {n_segments} segments",
            remedy="Read its segments one by one: their names stand in this header.",
        )
    n_signals = _whole_number(fields[1]) if len(fields) > 1 else None
    if n_signals is None:
        raise _malformed(where, "a record line 'NAME SIGNALS RATE SAMPLES'", repr(line[:80]))
    notes = []
    if _RECORD_FILE_SUFFIX.search(name):
        notes.append(f"record name written as the file {name}")
    rate_hz = DEFAULT_RATE_HZ
    if len(fields) > 2:
        try:
            rate_hz = float(fields[2].partition("/")[0])
        except ValueError:
            raise _malformed(where, "a sampling frequency in Hz", repr(fields[2][:40])) from None
    else:
        notes.append(f"no sampling frequency given: {DEFAULT_RATE_HZ:g} Hz by the format's rule")
    if not (math.isfinite(rate_hz) and rate_hz > 0):
        raise _lies(where, "a positive sampling frequency", f"{fields[2]} Hz")
    n_samples = None
    if len(fields) > 3:
        n_samples = _whole_number(fields[3])
        if n_samples is None:
            raise _malformed(where, "a number of samples", repr(fields[3][:40]))
    return n_signals, rate_hz, n_samples or None, tuple(notes)  # 0 samples means "not given" in the format


def parse_header(text: str, where: object = "header") -> Header:
    """Reads a header's text.

    Args:
        text: the whole header.
        where: what error messages call it.

    Raises:
        ECGReadError: `empty`, `header_malformed`, `header_lies` or `unsupported_format` (multi-segment records).
    """
    if "\x00" in text:
        raise _malformed(where, "a text header", "binary data")
    lines, comments = [], []
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("#"):
            comments.append(stripped[1:].strip())
        elif stripped:
            lines.append(stripped)
    if not lines:
        raise ECGReadError.because(
            ReasonCode.empty,
            where,
            expected="a record line",
            found="no line that is not a comment",
            remedy="Download the header again, or leave the record out.",
        )
    n_signals, rate_hz, n_samples, notes = _parse_record_line(where, lines[0])
    if n_signals != len(lines) - 1:
        raise _lies(where, f"{n_signals} signal lines as the record line promises", f"{len(lines) - 1}")
    if n_signals == 0:
        raise ECGReadError.because(
            ReasonCode.empty,
            where,
            expected="at least one signal",
            found="a header without signals",
            remedy="Such records hold annotations only: leave them out.",
        )
    signals = tuple([_parse_signal(where, number, line) for number, line in enumerate(lines[1:], 1)])
    return Header(rate_hz, n_samples, signals, tuple(comments), notes)


def age_and_sex(comments: tuple[str, ...]) -> tuple[float | None, Sex | None]:
    """Age in years and sex where comments state them (`Age: 74`, `<sex>: F`, or MIT-BIH's `69 M …`), else None.

    An implausible age is passed on as it stands (whoever builds a dataset judges it); `NaN` and words are None.
    """
    age_years: float | None = None
    sex: Sex | None = None
    for comment in comments:
        stated = _FACT.match(comment)
        if stated is None:
            if (short := _MITDB_FACTS.match(comment)) is not None and age_years is None:
                age_years, sex = float(short[1]), "male" if short[2] == "M" else "female"
            continue
        value = stated[2].lower()
        if stated[1].lower() == "sex":
            sex = "female" if value in ("f", "female") else "male" if value in ("m", "male") else sex
        elif re.fullmatch(r"-?\d+(\.\d*)?", value):
            age_years = float(value) if len(value) < 20 else age_years
    return age_years, sex
