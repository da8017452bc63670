"""Reading records against the wfdb package, and every hostile file we could think of."""

from __future__ import annotations

import os
import pickle
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import pytest
import wfdb

from ecgclip_jax.signal.readers import read_ecg
from ecgclip_jax.signal.record import ECGReadError, ReasonCode
from ecgclip_jax.signal.storage import to_stored
from ecgclip_jax.spec.signal import LEADS_12

N_SAMPLES = 1000


def write_record(
    folder: Path,
    name: str = "rec",
    *,
    fmt: str = "16",
    leads: tuple[str, ...] = LEADS_12,
    gain: float | list[float] = 1000.0,
    baseline: int | list[int] = 0,
    units: str = "mV",
    fs: float = 500,
    n_samples: int = N_SAMPLES,
    comments: tuple[str, ...] = (),
) -> np.ndarray:
    """A record of noise with a few missing samples, written by the wfdb package; returns its converter units."""
    lowest = {"212": -2048, "80": -128, "24": -(2**23), "32": -(2**31)}.get(fmt, -32768)
    spread = 30 if fmt == "80" else 300
    raw = np.random.default_rng(7).normal(0, spread, (n_samples, len(leads))).astype(np.int32)
    raw = np.clip(raw, -100 if fmt == "80" else -2000, 100 if fmt == "80" else 2000)
    raw[3:9, 1] = lowest
    wfdb.wrsamp(
        name,
        fs=fs,
        units=[units] * len(leads),
        sig_name=list(leads),
        d_signal=raw.astype(np.int32 if fmt in ("24", "32") else np.int16),
        fmt=[fmt] * len(leads),
        adc_gain=gain if isinstance(gain, list) else [gain] * len(leads),
        baseline=baseline if isinstance(baseline, list) else [baseline] * len(leads),
        comments=list(comments),
        write_dir=str(folder),
    )
    return raw


def edit_header(folder: Path, old: str, new: str, name: str = "rec", count: int = -1) -> None:
    """Replaces text in a header."""
    path = folder / f"{name}.hea"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, count))


def reason_of(path: Path, root: Path | None = None) -> ReasonCode:
    """The reason a file is not read; its message must teach."""
    with pytest.raises(ECGReadError) as caught:
        read_ecg(path, root=root)
    message = str(caught.value)
    assert "expected" in message
    assert "found" in message
    assert message.count(".") >= 1
    return caught.value.reason


@pytest.mark.parametrize("fmt", ["16", "24", "32", "80", "212", "516"])
@pytest.mark.parametrize("n_samples", [N_SAMPLES, 137])
def test_every_sample_format_equals_wfdb(tmp_path: Path, fmt: str, n_samples: int) -> None:
    write_record(tmp_path, fmt=fmt, n_samples=n_samples, gain=[100.0 + 10 * lead for lead in range(12)])
    record = read_ecg(tmp_path / "rec")
    expected = wfdb.rdrecord(str(tmp_path / "rec")).p_signal * 1000
    assert np.isnan(expected).any()
    np.testing.assert_allclose(record.signal_uv, expected, rtol=1e-6, atol=1e-3, equal_nan=True)
    assert record.leads == LEADS_12
    assert record.facts.format == f"wfdb{fmt}"


def test_gains_and_baselines_of_their_own(tmp_path: Path) -> None:
    gain = [11468.251078034213 + lead for lead in range(12)]
    baseline = [-17331 + 1000 * lead for lead in range(12)]
    raw = write_record(tmp_path, gain=gain, baseline=baseline)
    record = read_ecg(tmp_path / "rec.hea")
    expected = np.where(raw == -32768, np.nan, (raw - np.array(baseline)) / np.array(gain) * 1000)
    np.testing.assert_allclose(record.signal_uv, expected, rtol=1e-6, equal_nan=True)
    assert record.facts.resolution_uv == pytest.approx(1000 / gain[0])


def test_a_huge_baseline_costs_no_microvolts(tmp_path: Path) -> None:
    raw = write_record(tmp_path, baseline=0)
    edit_header(tmp_path, "1000.0(0)/mV", "1000.0(2000000000)/mV")
    expected = (raw[:, 0].astype(np.float64) - 2e9).astype(np.float32)
    np.testing.assert_array_equal(read_ecg(tmp_path / "rec").signal_uv[:, 0], expected)


@pytest.mark.parametrize(("units", "factor"), [("mV", 1000.0), ("uV", 1.0), ("V", 1e6)])
def test_units(tmp_path: Path, units: str, factor: float) -> None:
    raw = write_record(tmp_path, units=units, gain=500.0)
    record = read_ecg(tmp_path / "rec")
    np.testing.assert_allclose(record.signal_uv[:, 0], raw[:, 0] / 500 * factor, rtol=1e-6)
    assert record.facts.resolution_uv == pytest.approx(factor / 500)


@pytest.mark.parametrize("suffix", ["", ".hea", ".dat"])
def test_a_record_may_be_named_by_any_of_its_files(tmp_path: Path, suffix: str) -> None:
    write_record(tmp_path, comments=("Age: 50", "Sex: F"))
    record = read_ecg(str(tmp_path / f"rec{suffix}"))
    assert (record.record_id, record.rate_hz) == ("rec", 500.0)
    assert (record.facts.age_years, record.facts.sex) == (50.0, "female")
    assert record.facts.comments == ("Age: 50", "Sex: F")
    assert record.facts.band_low_hz is record.facts.mains_hz is None


def test_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_record(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert read_ecg("rec").signal_uv.shape == (N_SAMPLES, 12)


def test_a_record_in_several_files_with_other_leads(tmp_path: Path) -> None:
    """As PTB: twelve leads in one file, Frank's three in another; here the second file stands between them."""
    raw = np.random.default_rng(3).integers(-500, 500, (100, 5)).astype("<i2")
    (tmp_path / "a.dat").write_bytes(raw[:, [0, 2, 4]].tobytes())
    (tmp_path / "b.xyz").write_bytes(raw[:, [1, 3]].tobytes())
    names = ("i", "vx", "avf", "vy", "v6")
    lines = [
        f"{'b.xyz' if lead in (1, 3) else 'a.dat'} 16 2000 16 0 0 {raw[:, lead].sum()} 0 {names[lead]}"
        for lead in range(5)
    ]
    (tmp_path / "rec.hea").write_text("rec 5 1000 100\n" + "\n".join(lines))
    record = read_ecg(tmp_path / "rec")
    assert record.leads == ("I", "vx", "aVF", "vy", "V6")
    assert record.extra_leads == ("vx", "vy")
    np.testing.assert_array_equal(record.signal_uv, raw / np.float32(2))
    assert record.facts.checksum_mismatch == ()


def write_challenge_mat(folder: Path, raw: np.ndarray, *, shape: tuple[int, int] | None = None) -> None:
    """The Challenge's layout: MATLAB level 4, `val`, int16, leads by samples in Fortran order."""
    rows, columns = shape or (raw.shape[1], raw.shape[0])
    head = struct.pack("<5i", 30, rows, columns, 0, 4) + b"val\0"
    (folder / "E1.mat").write_bytes(head + raw.astype("<i2").tobytes())
    lines = [f"E1.mat 16+24 1000/mv 16 0 0 {raw[:, n].sum()} 0 {lead.upper()}" for n, lead in enumerate(LEADS_12)]
    record_line = f"E1.mat 12 500 {len(raw)} 05-May-2020 09:49:17"
    (folder / "E1.hea").write_text("\n".join([record_line, *lines, "# Age: NaN", "#Dx: 1,2"]))


def test_the_challenges_mat_with_a_header_of_2020(tmp_path: Path) -> None:
    scipy_io = pytest.importorskip("scipy.io")
    raw = np.random.default_rng(5).integers(-2000, 2000, (200, 12))
    write_challenge_mat(tmp_path, raw)
    for name in ("E1", "E1.mat", "E1.hea"):
        record = read_ecg(tmp_path / name)
        assert record.record_id == "E1"
        np.testing.assert_array_equal(record.signal_uv, scipy_io.loadmat(tmp_path / "E1.mat")["val"].T)
    assert record.leads == LEADS_12
    assert record.facts.format == "wfdb16+24"
    assert record.facts.age_years is None
    assert record.facts.comments == ("Age: NaN", "Dx: 1,2")
    assert record.facts.notes == ("record name written as the file E1.mat",)


def test_a_missing_gain_is_the_formats_default_and_said(tmp_path: Path) -> None:
    raw = write_record(tmp_path)
    edit_header(tmp_path, "1000.0(0)/mV", "0", count=1)
    record = read_ecg(tmp_path / "rec")
    np.testing.assert_allclose(record.signal_uv[:, 0], raw[:, 0] * 5.0)
    assert record.facts.gain_assumed == ("I",)
    assert record.facts.resolution_uv == 5.0


def test_a_missing_sample_count_is_taken_from_the_file(tmp_path: Path) -> None:
    write_record(tmp_path)
    edit_header(tmp_path, f" 500 {N_SAMPLES}", " 500")
    assert read_ecg(tmp_path / "rec").signal_uv.shape == (N_SAMPLES, 12)


def test_a_checksum_that_does_not_fit_is_a_fact(tmp_path: Path) -> None:
    write_record(tmp_path, n_samples=137)
    content = bytearray((tmp_path / "rec.dat").read_bytes())
    content[24 * 130 + 4] ^= 1  # the third lead
    (tmp_path / "rec.dat").write_bytes(content)
    assert read_ecg(tmp_path / "rec").facts.checksum_mismatch == ("III",)


def test_signals_that_are_no_voltage_are_left_out_and_named(tmp_path: Path) -> None:
    raw = write_record(tmp_path, leads=("II", "ABP", "V1"))
    text = (tmp_path / "rec.hea").read_text().splitlines()
    text[2] = text[2].replace("/mV", "/mmHg")
    (tmp_path / "rec.hea").write_text("\n".join(text))
    record = read_ecg(tmp_path / "rec")
    assert record.leads == ("II", "V1")
    np.testing.assert_array_equal(record.signal_uv, raw[:, [0, 2]].astype(np.float32))
    assert record.facts.notes == ("signal ABP in mmHg left out: no voltage",)


def _truncate(folder: Path) -> None:
    (folder / "rec.dat").write_bytes((folder / "rec.dat").read_bytes()[:-1000])


def _empty_signal(folder: Path) -> None:
    (folder / "rec.dat").write_bytes(b"")


def _empty_header(folder: Path) -> None:
    (folder / "rec.hea").write_bytes(b"")


def _garbage_header(folder: Path) -> None:
    (folder / "rec.hea").write_bytes(np.random.default_rng(0).bytes(4000))


def _endless_header(folder: Path) -> None:
    (folder / "rec.hea").write_bytes(b"#" * (2**20 + 1))


def _no_signal_file(folder: Path) -> None:
    (folder / "rec.dat").unlink()


def _no_header(folder: Path) -> None:
    (folder / "rec.hea").unlink()


def _header_is_a_folder(folder: Path) -> None:
    (folder / "rec.hea").unlink()
    (folder / "rec.hea").mkdir()


def _signal_is_a_pipe(folder: Path) -> None:
    (folder / "rec.dat").unlink()
    os.mkfifo(folder / "rec.dat")


def _ten_leads_in_a_file_of_twelve(folder: Path) -> None:
    lines = (folder / "rec.hea").read_text().splitlines()[:11]
    lines[0] = lines[0].replace(" 12 ", " 10 ")
    (folder / "rec.hea").write_text("\n".join(lines))


def _half_a_frame(folder: Path) -> None:
    edit_header(folder, f" 500 {N_SAMPLES}", " 500")
    (folder / "rec.dat").write_bytes((folder / "rec.dat").read_bytes()[:-3])


def _lead_in_unknown_unit(folder: Path) -> None:
    edit_header(folder, "/mV", "/adu", count=1)


def _no_voltage_at_all(folder: Path) -> None:
    for number, lead in enumerate(LEADS_12):
        edit_header(folder, f" 0 {lead}\n", f" 0 S{number}\n")
    edit_header(folder, "/mV", "/mmHg")


def _two_formats_in_one_file(folder: Path) -> None:
    edit_header(folder, "rec.dat 16 ", "rec.dat 16+2 ", count=1)


def _offset_beyond_the_end(folder: Path) -> None:
    edit_header(folder, f" 500 {N_SAMPLES}", " 500")
    edit_header(folder, "rec.dat 16 ", "rec.dat 16+9999999 ")


def _climbs_up(folder: Path) -> None:
    write_record(folder.parent, "outside")
    edit_header(folder, "rec.dat", "../outside.dat")


def _absolute(folder: Path) -> None:
    write_record(folder.parent, "outside")
    edit_header(folder, "rec.dat", str(folder.parent / "outside.dat"))


def _link_out(folder: Path) -> None:
    write_record(folder.parent, "outside")
    (folder / "rec.dat").unlink()
    (folder / "rec.dat").symlink_to(folder.parent / "outside.dat")


def _header_links_out(folder: Path) -> None:
    write_record(folder.parent, "outside")
    (folder / "rec.hea").unlink()
    (folder / "rec.hea").symlink_to(folder.parent / "outside.hea")


def _name_too_long(folder: Path) -> None:
    edit_header(folder, "rec.dat", "r" * 5000)


HOSTILE: list[tuple[Callable[[Path], None], ReasonCode]] = [
    (_truncate, ReasonCode.truncated),
    (_empty_signal, ReasonCode.empty),
    (_empty_header, ReasonCode.empty),
    (_garbage_header, ReasonCode.header_malformed),
    (_endless_header, ReasonCode.unreadable),
    (_no_signal_file, ReasonCode.missing_file),
    (_no_header, ReasonCode.missing_file),
    (_header_is_a_folder, ReasonCode.unreadable),
    (_signal_is_a_pipe, ReasonCode.unreadable),
    (_ten_leads_in_a_file_of_twelve, ReasonCode.header_lies),
    (_half_a_frame, ReasonCode.truncated),
    (_lead_in_unknown_unit, ReasonCode.unit_unknown),
    (_no_voltage_at_all, ReasonCode.no_known_lead),
    (_two_formats_in_one_file, ReasonCode.header_malformed),
    (_offset_beyond_the_end, ReasonCode.truncated),
    (_climbs_up, ReasonCode.path_outside_source),
    (_absolute, ReasonCode.path_outside_source),
    (_link_out, ReasonCode.path_outside_source),
    (_header_links_out, ReasonCode.path_outside_source),
    (_name_too_long, ReasonCode.unreadable),
]


@pytest.mark.parametrize(("sabotage", "reason"), HOSTILE, ids=[sabotage.__name__ for sabotage, _ in HOSTILE])
@pytest.mark.parametrize("with_root", [False, True])
def test_hostile_records(tmp_path: Path, sabotage: Callable[[Path], None], reason: ReasonCode, with_root: bool) -> None:
    folder = tmp_path / "source"
    folder.mkdir()
    write_record(folder)
    sabotage(folder)
    assert reason_of(folder / "rec", folder if with_root else None) == reason


@pytest.mark.parametrize("fmt", ["16", "212", "24", "516"])
def test_a_billion_promised_samples_allocate_nothing(tmp_path: Path, fmt: str) -> None:
    write_record(tmp_path, fmt=fmt)
    edit_header(tmp_path, f" 500 {N_SAMPLES}", " 500 1000000000")
    read_with_wfdb_once = write_record(tmp_path, "other", fmt="212")
    read_ecg(tmp_path / "other")  # imports are not what is measured
    tracemalloc.start()
    reason = reason_of(tmp_path / "rec")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert reason == (ReasonCode.header_lies if fmt == "516" else ReasonCode.truncated)
    assert peak < 4 * 2**20
    assert read_with_wfdb_once.size


OTHER_FORMAT_SABOTAGE = [_climbs_up, _absolute, _link_out, _no_signal_file, _signal_is_a_pipe, _empty_signal, _truncate]


@pytest.mark.parametrize("fmt", ["212", "24", "516"])
@pytest.mark.parametrize("sabotage", OTHER_FORMAT_SABOTAGE)
def test_hostile_records_of_other_formats(tmp_path: Path, fmt: str, sabotage: Callable[[Path], None]) -> None:
    folder = tmp_path / "source"
    folder.mkdir()
    write_record(folder, fmt=fmt, leads=LEADS_12[:8])  # FLAC holds eight channels a file
    sabotage(folder)
    expected = {dict(HOSTILE)[sabotage]}
    if sabotage in (_empty_signal, _truncate):  # what is found first differs between formats
        expected = {ReasonCode.truncated, ReasonCode.unreadable, ReasonCode.header_lies}
    assert reason_of(folder / "rec") in expected


MUTATIONS = b"0|-1|99999999999|1e308|nan|/|(|)|x|:|+| |\n|../|\x00|212|516|16|mV|uV|\xff|#|1000000|".split(b"|")


@pytest.mark.parametrize("fmt", ["16", "212", "24", "80", "516"])
def test_damaged_records_are_read_or_refused_with_a_reason(tmp_path: Path, fmt: str) -> None:
    write_record(tmp_path, fmt=fmt, n_samples=100, leads=LEADS_12[:8])
    pristine = {name: (tmp_path / name).read_bytes() for name in ("rec.hea", "rec.dat")}
    random = Random(fmt)
    outcomes: set[object] = set()
    for _ in range(80):
        for name, content in pristine.items():
            damaged = bytearray(content)
            for _ in range(random.randint(0, 2)):
                at = random.randrange(len(damaged) + 1)
                damaged[at : at + random.choice([0, 1, 5])] = random.choice(MUTATIONS)
            (tmp_path / name).write_bytes(damaged)
        try:
            outcomes.add(to_stored(read_ecg(tmp_path / "rec"))[0].ecg_uv.shape)
        except ECGReadError as error:
            outcomes.add(error.reason)
    assert (5000, 12) in outcomes
    assert len(outcomes) > 3


def test_unknown_formats_are_refused(tmp_path: Path) -> None:
    write_record(tmp_path)
    edit_header(tmp_path, "rec.dat 16 ", "rec.dat 99 ")
    assert reason_of(tmp_path / "rec") == ReasonCode.unsupported_format


def test_a_path_may_leave_its_folder_only_inside_the_root(tmp_path: Path) -> None:
    """As git-annex and data lakes do it: the record is a link into a store beside it."""
    store, view = tmp_path / "store", tmp_path / "view"
    store.mkdir()
    view.mkdir()
    write_record(store)
    for suffix in (".hea", ".dat"):
        (view / f"rec{suffix}").symlink_to(store / f"rec{suffix}")
    assert read_ecg(view / "rec", root=tmp_path).signal_uv.shape == (N_SAMPLES, 12)
    assert reason_of(view / "rec", view) == ReasonCode.path_outside_source
    assert reason_of(view / ".." / "store" / "rec", view) == ReasonCode.path_outside_source
    assert (
        reason_of(tmp_path / "storey" / "rec", store) == ReasonCode.path_outside_source
    )  # a name that only begins alike


def test_a_mat_that_contradicts_its_header(tmp_path: Path) -> None:
    raw = np.zeros((200, 12), np.int16)
    write_challenge_mat(tmp_path, raw, shape=(10, 240))
    assert reason_of(tmp_path / "E1") == ReasonCode.header_lies


class _Pickled:
    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, ("unpickled",)


@pytest.mark.parametrize("name", ["x.mat", "x.npy", "x.pkl", "x.xml"])
def test_nothing_is_unpickled_and_other_files_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(pickle.dumps(_Pickled()))
    assert reason_of(tmp_path / name) == ReasonCode.unsupported_format
    assert not (tmp_path / "unpickled").exists()


@pytest.mark.parametrize("path", ["", ".", "..", "a\0b", "nowhere/rec", "x" * 5000])
def test_paths_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ECGReadError) as caught:
        read_ecg(path)
    assert caught.value.reason in (ReasonCode.missing_file, ReasonCode.unreadable, ReasonCode.unsupported_format)
