"""Records in several segments: as wfdb puts them together, gaps missing, and lies refused before memory is taken."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import wfdb

from ecgclip_jax.signal.readers import read_ecg
from ecgclip_jax.signal.record import ECGReadError, ReasonCode
from ecgclip_jax.signal.storage import to_stored

LEADS = ("I", "II", "V1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One record of fixed layout, and one of variable layout with a gap of 4 s and a lead that goes missing."""
    tmp_path, rng = tmp_path_factory.mktemp("segments"), np.random.default_rng(0)
    for name, n, leads in (("s1", 2000, LEADS), ("s2", 3000, LEADS), ("v2", 3000, LEADS[1:])):
        wfdb.wrsamp(
            name, fs=500, units=["mV"] * len(leads), sig_name=list(leads), fmt=["16"] * len(leads),
            d_signal=rng.integers(-900, 900, (n, len(leads))).astype(np.int16), adc_gain=[1000.0] * len(leads),
            baseline=[0] * len(leads), write_dir=str(tmp_path), comments=["Age: 50"] if name == "s1" else [],
        )  # fmt: skip
    (tmp_path / "fixed.hea").write_text("fixed/2 3 500 5000\ns1 2000\ns2 3000\n# Sex: F\n")
    layout = "".join(f"~ 0 1000(0)/mV 16 0 0 0 0 {lead}\n" for lead in LEADS)
    (tmp_path / "layout.hea").write_text(f"layout 3 500 0\n{layout}")
    (tmp_path / "variable.hea").write_text("variable/4 3 500 7000\nlayout 0\ns1 2000\n~ 2000\nv2 3000\n")
    return tmp_path


@pytest.mark.parametrize("name", ["fixed", "variable"])
def test_segments_are_put_together_as_wfdb_does(folder: Path, name: str) -> None:
    ours, peer = read_ecg(folder / name), wfdb.rdrecord(str(folder / name))
    assert ours.leads == tuple(peer.sig_name)
    np.testing.assert_allclose(ours.signal_uv, peer.p_signal * 1000, atol=1e-3)
    assert np.isnan(ours.signal_uv[2000:4000]).all() == (name == "variable")


def test_facts_come_from_master_and_segments(folder: Path) -> None:
    facts = read_ecg(folder / "fixed.hea").facts
    assert (facts.age_years, facts.sex, facts.resolution_uv) == (50.0, "female", 1.0)


def test_every_window_of_it_is_kept(folder: Path) -> None:
    (folder / "long.hea").write_text("long/4 3 500 17000\ns1 2000\n~ 10000\ns2 3000\ns1 2000\n")
    windows = to_stored(read_ecg(folder / "long"))
    assert [(w.window_index, w.n_windows) for w in windows] == [(0, 3), (2, 3)], "the empty one keeps its place"
    assert [int(w.lead_present.sum()) for w in windows] == [3, 3]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("m/2 3 500 5000\ns1 2000\n", ReasonCode.header_lies),
        ("m/2 3 500 9000\ns1 2000\ns2 3000\n", ReasonCode.header_lies),
        ("m/1 3 250 2000\ns1 2000\n", ReasonCode.header_lies),
        ("m/1 3 500 2001\ns1 2001\n", ReasonCode.header_lies),
        ("m/2 3 500 1000002000\ns1 2000\n~ 1000000000\n", ReasonCode.header_lies),
        ("m/1 3 500 1000000000\n~ 1000000000\n", ReasonCode.empty),
        ("m/1 3 500 2000\ns1\n", ReasonCode.header_malformed),
        ("m/1 3 500 -5\ns1 -5\n", ReasonCode.header_malformed),
        ("m/1 3 500 2000\n../s1 2000\n", ReasonCode.path_outside_source),
        ("m/1 3 500 5000\nfixed 5000\n", ReasonCode.unsupported_format),
        ("m/1 3 500 2000\nnowhere 2000\n", ReasonCode.missing_file),
    ],
)
def test_lies_have_a_reason(folder: Path, tmp_path: Path, text: str, reason: ReasonCode) -> None:
    for path in folder.glob("*.*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "m.hea").write_text(text)
    with pytest.raises(ECGReadError) as caught:
        read_ecg(tmp_path / "m")
    assert caught.value.reason == reason
