"""Every real WFDB record beside the checkout, against the wfdb package."""

from __future__ import annotations

import shutil
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import wfdb

from ecgclip_jax.signal.leads import canonical_lead
from ecgclip_jax.signal.readers import read_ecg
from ecgclip_jax.signal.record import ECGReadError, ECGRecord, ReasonCode
from ecgclip_jax.signal.storage import to_stored
from ecgclip_jax.spec.signal import LEADS_12

pytestmark = pytest.mark.real_data

COHORTS = {"ptbxl": 800, "challenge-2021": 99, "ludb": 100, "cpsc2021": 10, "ptbdb": 1, "mitdb": 1}
"""Headers per folder."""


def headers(shared_data: Path, cohort: str) -> list[Path]:
    """All headers of a cohort."""
    return sorted((shared_data / cohort).rglob("*.hea"))


@cache
def read(header: Path, root: Path) -> ECGRecord:
    """Each record is read once for all tests."""
    return read_ecg(header, root=root)


def wfdb_physical(header: Path, temporary: Path) -> tuple[np.ndarray, list[str], float]:
    """What wfdb reads: millivolts, names, rate; old Georgia headers are repaired in a copy, since wfdb refuses them."""
    first = next(line for line in header.read_text().splitlines() if line.strip() and not line.startswith("#"))
    if first.split()[0].endswith(".mat"):
        copy = temporary / header.name
        copy.write_text(header.read_text().replace(".mat 12 ", " 12 ", 1))
        shutil.copy(header.with_suffix(".mat"), temporary)
        with pytest.raises(Exception):  # noqa: B017  otherwise the repair has become needless
            wfdb.rdheader(str(header.with_suffix("")))
        header = copy
    peer = wfdb.rdrecord(str(header.with_suffix("")))
    assert {unit.lower() for unit in peer.units} == {"mv"}
    return peer.p_signal, peer.sig_name, peer.fs


@pytest.mark.parametrize("cohort", COHORTS)
def test_every_record_equals_wfdb(shared_data: Path, tmp_path: Path, cohort: str) -> None:
    found = headers(shared_data, cohort)
    assert len(found) == COHORTS[cohort]
    for header in found:
        record = read(header, shared_data)
        physical_mv, names, rate_hz = wfdb_physical(header, tmp_path)
        assert record.signal_uv.shape == physical_mv.shape, header
        np.testing.assert_allclose(record.signal_uv, physical_mv * 1000, atol=1.0, rtol=0, equal_nan=True)
        assert record.leads == tuple(canonical_lead(name) or name for name in names), header
        assert record.rate_hz == rate_hz
        assert record.facts.checksum_mismatch == (), header
        assert record.facts.gain_assumed == ()


def test_georgias_old_headers(shared_data: Path) -> None:
    found = headers(shared_data, "challenge-2021")
    old = [header for header in found if read(header, shared_data).facts.notes]
    assert len(old) == 17
    assert {read(header, shared_data).record_id for header in old} == {header.stem for header in old}


def test_age_and_sex_come_from_headers(shared_data: Path) -> None:
    facts = [read(header, shared_data).facts for header in headers(shared_data, "challenge-2021")]
    assert Counter(fact.sex for fact in facts) == {"male": 49, "female": 50}
    unknown = [fact for fact in facts if fact.age_years is None]
    assert all(any("NaN" in comment for comment in fact.comments) for fact in unknown)
    assert len(unknown) <= 3
    ludb = read(shared_data / "ludb" / "data" / "1.hea", shared_data).facts
    assert (ludb.age_years, ludb.sex) == (51.0, "female")
    ptb = read(shared_data / "ptbdb" / "patient001" / "s0010_re.hea", shared_data).facts
    assert (ptb.age_years, ptb.sex) == (81.0, "female")
    assert "Reason for admission: Myocardial infarction" in ptb.comments


def test_all_records_can_be_stored_and_their_flags_are_the_known_ones(shared_data: Path) -> None:
    flags: dict[str, Counter[str]] = {}
    for cohort in COHORTS:
        flags[cohort] = Counter()
        for header in headers(shared_data, cohort):
            for window in to_stored(read(header, shared_data), keep_windows="first"):
                assert window.ecg_uv.shape == (5000, 12)
                flags[cohort].update(window.quality_flags)
    assert set(flags["ptbxl"]) <= {"goldberger_residual"}
    assert flags["ptbxl"]["goldberger_residual"] <= 1
    assert set(flags["challenge-2021"]) <= {"amplitude_suspect_unit", "flat_lead", "padded_short", "missing_samples"}
    assert flags["challenge-2021"]["amplitude_suspect_unit"] == 2  # HR00599 has a gain of 200 that should be 1000
    assert flags["ludb"]["einthoven_residual"] > 80  # its headers scale every lead to a range of one
    assert flags["cpsc2021"]["missing_lead"] == 10
    assert flags["ptbdb"] == {"extra_leads_dropped": 1}
    assert flags["mitdb"] == {"extra_leads_dropped": 1, "missing_lead": 1}


def test_ptbs_fifteen_leads_become_twelve(shared_data: Path) -> None:
    record = read(shared_data / "ptbdb" / "patient001" / "s0010_re.hea", shared_data)
    assert record.leads == (*LEADS_12, "vx", "vy", "vz")
    assert (record.rate_hz, record.facts.resolution_uv) == (1000.0, 0.5)
    windows = to_stored(record)
    assert [window.n_windows for window in windows] == [4, 4, 4, 4]
    assert "padded_short" in windows[3].quality_flags  # 8.4 of 10 s
    # A tenth of a second inside, downsampled samples follow the source closely.
    source = record.signal_uv[:10000:2, :12]
    difference_uv = np.abs(windows[0].ecg_uv - source)[50:-50]
    assert np.median(difference_uv) < 3


def test_the_same_record_at_100_and_500_hz_is_stored_alike(shared_data: Path) -> None:
    """PTB-XL made its 100 Hz files from the 500 Hz ones: below 40 Hz they agree."""
    correlations = []
    for number in range(1, 21):
        pair = [
            shared_data / "ptbxl" / f"records{rate}00" / "00000" / f"{number:05d}_{suffix}.hea"
            for rate, suffix in ((1, "lr"), (5, "hr"))
        ]
        low, high = (to_stored(read(header, shared_data))[0].ecg_uv.astype(float) for header in pair)
        correlations.append(np.median([np.corrcoef(low[:, lead], high[:, lead])[0, 1] for lead in range(12)]))
    assert np.median(correlations) > 0.97


def test_a_native_cpsc_struct_is_refused_by_name(shared_data: Path) -> None:
    with pytest.raises(ECGReadError) as caught:
        read_ecg(shared_data / "cpsc2018" / "TrainingSet" / "A1980.mat")
    assert caught.value.reason == ReasonCode.unsupported_format
