"""Each trap of published cohorts, and hostile input, on a small file that has it: a reason, a flag, or a refusal."""

from __future__ import annotations

import stat
import zipfile
from pathlib import Path

import numpy as np
import pytest

from ecgclip_jax.signal.readers import read_ecg
from ecgclip_jax.signal.record import ECGReadError, ECGRecord, ReasonCode, SourceFacts
from ecgclip_jax.signal.storage import to_stored
from ecgclip_jax.spec.signal import LEADS_12
from tfds_builders.common.archives import unpack_zip
from tfds_builders.common.cohort import BuildError
from tfds_builders.common.metadata import read_csv
from tfds_builders.common.source_faults import (
    match_ids,
    measurement,
    split_codes,
    suspected_gain,
    without_zero_padding,
)
from tfds_builders.common.stated import plausible_age
from tfds_builders.ptb_xl.make_dummy_data import dummy_ecgs


def write_record(
    folder: Path,
    samples: np.ndarray,
    leads: tuple[str, ...] = LEADS_12,
    *,
    gain: float = 1000.0,
    n_samples: int | None = None,
    file_name: str = "r.dat",
) -> Path:
    """A format-16 record `r` whose header says what it is told to say."""
    samples.astype("<i2").tofile(folder / "r.dat")
    lines = [f"r {len(leads)} 500 {len(samples) if n_samples is None else n_samples}"]
    lines += [f"{file_name} 16 {gain:g}(0)/mV 16 0 {s[0]} {int(s.sum()) % 65536} 0 {name}"
              for name, s in zip(leads, samples.T.astype(np.int64), strict=True)]  # fmt: skip
    (folder / "r.hea").write_text("\n".join(lines) + "\n")
    return folder / "r"


def record(signal_uv: np.ndarray, rate_hz: float = 400.0) -> ECGRecord:
    return ECGRecord("e1", signal_uv.astype(np.float32), LEADS_12, rate_hz, SourceFacts("array", 1.0))


# Hostile files.


@pytest.mark.parametrize("name", ["../outside.dat", "/etc/passwd", "sub/../../outside.dat"])
def test_a_file_name_that_climbs_out(tmp_path: Path, name: str) -> None:
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (tmp_path / "outside.dat").write_bytes(bytes(24))
    path = write_record(source, dummy_ecgs(1)[0][:100], file_name=name)
    with pytest.raises(ECGReadError) as caught:
        read_ecg(path, root=source)
    assert caught.value.reason == ReasonCode.path_outside_source


@pytest.mark.parametrize("fmt", ["16", "212"])
def test_a_billion_samples_promised(tmp_path: Path, fmt: str) -> None:
    path = write_record(tmp_path, dummy_ecgs(1)[0], n_samples=10**9)
    header = tmp_path / "r.hea"
    header.write_text(header.read_text().replace("r.dat 16 ", f"r.dat {fmt} "))
    with pytest.raises(ECGReadError) as caught:
        read_ecg(path)
    assert caught.value.reason == ReasonCode.truncated


def _zip(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil", "a\\..\\evil", "C:/evil"])
def test_a_zip_that_unpacks_outside(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "in"
    with pytest.raises(BuildError, match="outside"):
        unpack_zip(_zip(tmp_path / "z.zip", {"good": b"1", name: b"2"}), folder)
    assert not folder.exists(), "nothing is written before everything is checked"


def test_a_zip_with_a_link(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        link = zipfile.ZipInfo("link")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc")
    with pytest.raises(BuildError, match="link"):
        unpack_zip(tmp_path / "z.zip", tmp_path / "in")


def test_a_zip_through_a_link_that_lies_there(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "in" / "a").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BuildError, match="through a link"):
        unpack_zip(_zip(tmp_path / "z.zip", {"a/b": b"1"}), tmp_path / "in")
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_zip_bomb_and_a_damaged_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = _zip(tmp_path / "bomb.zip", {"zeros": bytes(10_000_000)})
    monkeypatch.setattr("tfds_builders.common.archives.MAX_COMPRESSION", 5)
    with pytest.raises(BuildError, match="promise"):
        unpack_zip(bomb, tmp_path / "in")
    damaged = _zip(tmp_path / "damaged.zip", {"a": b"abc" * 50})
    content = bytearray(damaged.read_bytes())
    content[40] ^= 255
    damaged.write_bytes(content)
    with pytest.raises(BuildError, match="download it again"):
        unpack_zip(damaged, tmp_path / "in")
    assert not (tmp_path / "in" / "a").exists()


def test_an_honest_zip(tmp_path: Path) -> None:
    archive = _zip(tmp_path / "z.zip", {"a/b.hdf5": b"1", "c.csv": b"22"})
    assert unpack_zip(archive, tmp_path / "in", ["a/b.hdf5"]) == [tmp_path / "in" / "a" / "b.hdf5"]
    assert not (tmp_path / "in" / "c.csv").exists()
    (tmp_path / "in" / "a" / "b.hdf5").write_bytes(b"X")
    both = unpack_zip(archive, tmp_path / "in")
    assert [path.read_bytes() for path in both] == [b"X", b"22"], "what is there in full size is not unpacked again"
    with pytest.raises(BuildError, match=r"exams\.csv"):
        unpack_zip(archive, tmp_path / "in", ["exams.csv"])


def test_a_table_of_a_million_columns(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(",".join(f"c{i}" for i in range(10**6)) + "\n")
    with pytest.raises(BuildError, match=r"characters|columns"):
        read_csv(path, ("c0",))
    path.write_text(",".join(f"c{i}" for i in range(10**4)) + "\n")
    with pytest.raises(BuildError, match="5,000 columns"):
        read_csv(path, ("c0",))
    path.write_text("a,b\n1,2\n" + "," * 10**6 + "\n3,4\n")
    table = read_csv(path, ("a", "b"))
    assert (table.source_rows, [number for number, _ in table.malformed]) == (3, [1]), "one such row is one bad row"


# Traps of published cohorts.


@pytest.mark.parametrize("cell", ["300", "-1", "-9", "121", "nan", "old"])
def test_an_age_that_is_none(cell: str) -> None:
    assert plausible_age(cell) == (None, ("age_out_of_range",))


def test_a_misprinted_gain_is_a_suspicion(tmp_path: Path) -> None:
    """Georgia's early headers: five times too small may just pass the amplitude check, the gain itself tells."""
    found = read_ecg(write_record(tmp_path, dummy_ecgs(1)[0], gain=4880.0))
    assert suspected_gain(found) == ("gain_misprinted",)
    assert to_stored(found)[0].ecg_uv.max() < 1000, "nothing is rescaled"
    assert suspected_gain(read_ecg(write_record(tmp_path, dummy_ecgs(1)[0]))) == ()


@pytest.mark.parametrize("gain", [250.0, 1100.0])
def test_gains_of_their_own(tmp_path: Path, gain: float) -> None:
    truth_uv = dummy_ecgs(1)[0]
    raw = np.rint(truth_uv * gain / 1000)
    (window,) = to_stored(read_ecg(write_record(tmp_path, raw, gain=gain)))
    assert np.abs(window.ecg_uv - truth_uv).max() <= np.ceil(500 / gain) + 1
    assert window.quality_flags == ()


@pytest.mark.parametrize(("cell", "value"), [("412", 412.0), ("29999", None), ("", None), ("-29999.0", None),
                                             ("nan", None), ("n/a", None), ("9000", None)])  # fmt: skip
def test_measurements_that_were_not_made(cell: str, value: float | None) -> None:
    assert measurement(cell, (0, 5000)) == value


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        ("426783006,59118001,", ("426783006", "59118001")),
        ("426783006,,59118001", ("426783006", "59118001")),
        ("426783006, 426783006", ("426783006",)),
        ("", ()),
        (" , ", ()),
    ],
)
def test_lists_of_codes(text: str, codes: tuple[str, ...]) -> None:
    assert split_codes(text) == codes


def test_spikes_and_gaps(tmp_path: Path) -> None:
    raw = dummy_ecgs(1)[0]
    raw[1000:1010, 3] = -32768
    raw[2000, 7] = 32767
    (window,) = to_stored(read_ecg(write_record(tmp_path, raw)))
    assert {"missing_samples", "saturated"} <= set(window.quality_flags)
    assert (window.ecg_uv[1000:1010, 3] == -32768).all()


def test_zeros_at_both_ends_are_no_recording() -> None:
    """CODE-15 %: 7 s at 400 Hz in a container of 4,096 samples."""
    signal_uv = np.zeros((4096, 12))
    ecg_uv = dummy_ecgs(1)[0][:2800]
    ecg_uv[0], ecg_uv[-1] = 7, 7
    signal_uv[648:3448] = ecg_uv
    found, reasons = without_zero_padding(record(signal_uv))
    assert reasons == ("zero_padding_removed",)
    np.testing.assert_array_equal(found.signal_uv, ecg_uv)
    (window,) = to_stored(found)
    assert (window.ecg_uv[3500:] == -32768).all()
    assert "padded_short" in window.quality_flags
    assert "frozen" not in window.quality_flags


def test_a_few_zeros_are_signal() -> None:
    signal_uv = dummy_ecgs(1)[0].astype(float) + 3
    signal_uv[:10], signal_uv[-10:] = 0, 0
    found, reasons = without_zero_padding(record(signal_uv))
    assert (found.signal_uv.shape[0], reasons) == (5000, ())


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_a_filler_row_is_empty(value: float) -> None:
    """CODE-15 %'s last row of each file, and its empty traces."""
    with pytest.raises(ECGReadError) as caught:
        without_zero_padding(record(np.full((4096, 12), value)))
    assert caught.value.reason == ReasonCode.empty


def test_tables_and_arrays_in_orders_of_their_own() -> None:
    """CODE-15 %: the CSV's order is not the HDF5's, whose last row is a filler with id 0."""
    matched = match_ids(["30", "10", "20", "40"], ["10", "20", "30", "20", "0"])
    assert matched.position == {"10": 0, "20": 1, "30": 2}
    assert matched.only_first == ("40",)
    assert matched.only_second == ("0",)
    assert matched.repeated == ("20",)


def test_lower_case_leads_and_fifteen_of_them(tmp_path: Path) -> None:
    """PTB: i … v6 and the Frank leads vx, vy, vz, which are not stored."""
    ecg_uv = dummy_ecgs(1)[0]
    leads = (*(lead.lower() for lead in LEADS_12), "vx", "vy", "vz")
    (window,) = to_stored(read_ecg(write_record(tmp_path, np.hstack([ecg_uv, ecg_uv[:, :3]]), leads)))
    np.testing.assert_array_equal(window.ecg_uv, ecg_uv)
    assert window.quality_flags == ("extra_leads_dropped",)


def test_nine_leads_leave_three_missing(tmp_path: Path) -> None:
    """ZZU pECG: I … aVF, V1, V3, V5; and never is a lead guessed from its column."""
    ecg_uv = dummy_ecgs(1)[0]
    kept = [*range(6), 6, 8, 10]
    order = kept[::-1]
    (window,) = to_stored(read_ecg(write_record(tmp_path, ecg_uv[:, order], tuple(LEADS_12[i] for i in order))))
    assert window.lead_present.tolist() == [i in kept for i in range(12)]
    np.testing.assert_array_equal(window.ecg_uv[:, kept], ecg_uv[:, kept])
    assert window.quality_flags == ("missing_lead",)
