"""Headers as cohorts write them, and headers that cannot be true."""

from __future__ import annotations

import math
from contextlib import suppress

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ecgclip_jax.signal.record import ECGReadError, ReasonCode
from ecgclip_jax.signal.wfdb_header import age_and_sex, parse_header


def header(signal: str = "r.dat 16 1000/mV 16 0 1 2 0 I", record: str = "r 1 500 5000", comments: str = "") -> str:
    return f"{record}\n{signal}\n{comments}"


def test_a_full_signal_line() -> None:
    line = parse_header(header("r.mat 16x1:0+24 2.5e2(-7)/uV 12 3 -5 40000 0 lead  II")).signals[0]
    assert line.file_name == "r.mat"
    assert line.format == (16, 1, 0, 24)
    assert (line.gain.units_per_physical, line.gain.microvolts, line.gain.resolution_uv) == (250.0, 1.0, 0.004)
    assert (line.baseline, line.checksum, line.name) == (-7, 40000, "lead  II")
    assert not line.gain.assumed


@pytest.mark.parametrize(
    ("signal", "resolution_uv", "baseline", "assumed", "name"),
    [
        ("r.dat 16", 5.0, 0, True, ""),
        ("r.dat 16 0/mV 16 0 1 2 0 I", 5.0, 0, True, "I"),
        ("r.dat 16 1000/mv 16 0 1 2 0 AVR", 1.0, 0, False, "AVR"),
        ("r.dat 16 1000.0(0)/mV 16 0 1 2 0 I", 1.0, 0, False, "I"),
        ("r.dat 16 1000.0(12.0)/mV 16 0 1 2 0 I", 1.0, 12, False, "I"),
        ("r.dat 16 2000 16 5 1 2 0 i", 0.5, 5, False, "i"),  # no unit: mV; no baseline: the converter's zero
        ("r.dat 16 1/uV 16 0 1 2 0 I", 1.0, 0, False, "I"),
        ("r.dat 16 1/µV 16 0 1 2 0 I", 1.0, 0, False, "I"),
        ("r.dat 16 1e6/V 16 0 1 2 0 I", 1.0, 0, False, "I"),
        ("r.dat 16 1000/mV 16 I", 1.0, 0, False, "I"),
        ("r.dat 16 1000/mV 16 0 1 2 0 12", 1.0, 0, False, "12"),
    ],
)
def test_tolerated_signal_lines(signal: str, resolution_uv: float, baseline: int, assumed: bool, name: str) -> None:
    line = parse_header(header(signal)).signals[0]
    assert math.isclose(line.gain.resolution_uv, resolution_uv)
    assert (line.baseline, line.gain.assumed, line.name) == (baseline, assumed, name)


def test_an_unknown_unit_is_no_voltage_yet_parses() -> None:
    gain = parse_header(header("r.dat 16 1/mmHg 16 0 1 2 0 ABP")).signals[0].gain
    assert gain.microvolts is None
    assert gain.unit == "mmHg"


@pytest.mark.parametrize(
    ("record", "rate_hz", "n_samples", "n_notes"),
    [
        ("E07520.mat 1 500 5000 05-May-2020 09:49:17", 500.0, 5000, 1),
        ("r 1 360/360.0(0) 650000 0:0:0 1/2/1999", 360.0, 650000, 0),
        ("r 1 500", 500.0, None, 0),
        ("r 1 500 0", 500.0, None, 0),
        ("r 1", 250.0, None, 1),
        ("r 1 257.5 5000.0", 257.5, 5000, 0),
    ],
)
def test_record_lines(record: str, rate_hz: float, n_samples: int | None, n_notes: int) -> None:
    parsed = parse_header(header(record=record))
    assert (parsed.rate_hz, parsed.n_samples, len(parsed.notes)) == (rate_hz, n_samples, n_notes)


def test_comments_are_kept_from_anywhere_and_blank_lines_are_not() -> None:
    parsed = parse_header("# before\r\nr 1 500 10\r\n\r\n#Age: 50\r\nr.dat 16 1000/mV 16 0 0 0 0 I\r\n# Dx: 1,2 ")
    assert parsed.comments == ("before", "Age: 50", "Dx: 1,2")
    assert len(parsed.signals) == 1


@pytest.mark.parametrize(
    ("comments", "age_years", "sex"),
    [
        (("Age: 74", "Sex: Female"), 74.0, "female"),
        (("age: 81", "sex: male"), 81.0, "male"),
        (("<age>: 51", "<sex>: F"), 51.0, "female"),
        (("Age: NaN", "Sex: Unknown"), None, None),
        (("Age: 300",), 300.0, None),
        (("Age: 123d",), None, None),
        (("69 M 1085 1629 x1",), 69.0, "male"),
        (("Aldomet, Inderal",), None, None),
        (("Age: " + "9" * 400,), None, None),
    ],
)
def test_age_and_sex(comments: tuple[str, ...], age_years: float | None, sex: str | None) -> None:
    assert age_and_sex(comments) == (age_years, sex)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", ReasonCode.empty),
        ("# only a comment", ReasonCode.empty),
        ("r 0 500 5000", ReasonCode.empty),
        ("\x00\x01\x02", ReasonCode.header_malformed),
        ("garbage", ReasonCode.header_malformed),
        ("r twelve 500 5000", ReasonCode.header_malformed),
        (header(record="r 1 fast 5000"), ReasonCode.header_malformed),
        (header(record="r 1 500 many"), ReasonCode.header_malformed),
        (header(record="r 1 500 -5000"), ReasonCode.header_malformed),
        (header(record="r -1 500 5000"), ReasonCode.header_malformed),
        (header("r.dat"), ReasonCode.header_malformed),
        (header("r.dat sixteen 1000/mV 16 0 1 2 0 I"), ReasonCode.header_malformed),
        (header("r.dat 16 loud 16 0 1 2 0 I"), ReasonCode.header_malformed),
        (header(record="r 1 0 5000"), ReasonCode.header_lies),
        (header(record="r 1 -500 5000"), ReasonCode.header_lies),
        (header(record="r 1 nan 5000"), ReasonCode.header_lies),
        (header(record="r 1 inf 5000"), ReasonCode.header_lies),
        (header(record="r 12 500 5000"), ReasonCode.header_lies),
        (header("r.dat 16 -1000/mV 16 0 1 2 0 I"), ReasonCode.header_lies),
        (header("r.dat 16 1e-30/mV 16 0 1 2 0 I"), ReasonCode.header_lies),
        (header("r.dat 16 1e400/mV 16 0 1 2 0 I"), ReasonCode.header_lies),
        (header("r.dat 16 1000(99999999999)/mV 16 0 1 2 0 I"), ReasonCode.header_lies),
        (header(f"r.dat 16 1000/mV 16 {'9' * 400} 1 2 0 I"), ReasonCode.header_lies),
        (header(record="r/3 1 500 5000"), ReasonCode.unsupported_format),
    ],
)
def test_headers_that_cannot_be_used(text: str, reason: ReasonCode) -> None:
    with pytest.raises(ECGReadError) as caught:
        parse_header(text)
    assert caught.value.reason == reason
    assert "expected" in str(caught.value)
    assert "found" in str(caught.value)


_token = st.text(st.characters(codec="utf-8"), max_size=12)
_plausible = st.sampled_from(["r.dat", "16", "1000/mV", "500", "5000", "1", "#"])
_line = st.builds(" ".join, st.lists(_token | _plausible, max_size=10))


@settings(max_examples=200, deadline=None)
@given(st.lists(_line, max_size=6))
@example([header("r.dat 16x99999999999999999999999999999999999999999 1/mV")])
@example([header(record="r 1 500 99999999999999999999999999")])
def test_any_text_is_a_header_or_an_error_with_a_reason(lines: list[str]) -> None:
    with suppress(ECGReadError):
        parsed = parse_header("\n".join(lines))
        assert parsed.rate_hz > 0
        assert parsed.signals


@settings(max_examples=100, deadline=None)
@given(
    gain=st.floats(1e-2, 1e6, allow_nan=False),
    baseline=st.integers(-(2**31), 2**31),
    checksum=st.integers(-32768, 65535),
    n_samples=st.integers(1, 10**9),
    rate_hz=st.floats(1, 1e4),
    byte_offset=st.integers(0, 1000),
)
def test_what_is_written_is_parsed(
    gain: float, baseline: int, checksum: int, n_samples: int, rate_hz: float, byte_offset: int
) -> None:
    signal = f"r.dat 16+{byte_offset} {gain!r}({baseline})/mV 16 0 0 {checksum} 0 V1"
    parsed = parse_header(header(signal, record=f"r 1 {rate_hz!r} {n_samples}"))
    line = parsed.signals[0]
    assert (parsed.rate_hz, parsed.n_samples) == (rate_hz, n_samples)
    assert (line.gain.units_per_physical, line.baseline, line.checksum) == (gain, baseline, checksum)
    assert line.format.byte_offset == byte_offset
