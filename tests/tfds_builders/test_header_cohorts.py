"""Cohorts whose facts stand in WFDB headers: Challenge 2021, Chapman-Shaoxing-Ningbo, PTB, LUDB, CPSC 2021."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.outcomes import outcomes

import tfds_builders
from tfds_builders.challenge2021.cohort import Challenge2021
from tfds_builders.chapman_shaoxing_ningbo.cohort import ChapmanShaoxingNingbo
from tfds_builders.cinc2017.cohort import Cinc2017
from tfds_builders.common.cohort import BuildError, SourceOutcome
from tfds_builders.common.dummy import dummy_ecgs
from tfds_builders.cpsc2018.cohort import from_source as cpsc2018
from tfds_builders.cpsc2021.cohort import Cpsc2021
from tfds_builders.ludb.cohort import Ludb
from tfds_builders.ludb.make_dummy_data import WAVES
from tfds_builders.mitdb.cohort import Mitdb
from tfds_builders.ptb.cohort import Ptb

ROOT = Path(tfds_builders.__file__).parent


def _dummy(name: str) -> Path:
    return ROOT / name / "dummy_data"


@pytest.fixture(scope="module")
def challenge() -> dict[str, SourceOutcome]:
    return outcomes(Challenge2021(_dummy("challenge2021")))


@pytest.mark.parametrize(
    ("record_id", "site", "codes", "age", "reasons"),
    [
        ("JS00344", "chapman_shaoxing", ("426177001",), 59, set()),
        ("JS13287", "ningbo", ("426783006", "55827005"), None, {"age_out_of_range", "sex_unknown"}),
        ("E00001", "georgia", ("426177001",), 60, set()),
        ("Q0001", "cpsc_2018_extra", ("428750005", "426783006"), None, {"age_unknown"}),
        ("S0001", "ptb", ("164865005",), 81, set()),
        ("I0001", "st_petersburg_incart", ("61277005", "427393009"), 65, set()),
    ],
)
def test_headers_of_every_database(
    challenge: dict[str, SourceOutcome], record_id: str, site: str, codes: tuple[str, ...], age: int, reasons: set[str]
) -> None:
    (record,) = challenge[record_id].records
    assert (record.site, record.label_codes) == (site, codes)
    assert np.array_equal([record.age_years], [np.nan if age is None else age], equal_nan=True)
    assert reasons <= set(challenge[record_id].reasons)
    assert "report_empty" not in challenge[record_id].reasons, "a cohort without reports has no empty ones"
    assert not record.patient_id_known
    assert "patient_unknown" in challenge[record_id].reasons
    assert record.lead_present.all()


def test_rates_gains_and_the_very_old(challenge: dict[str, SourceOutcome]) -> None:
    records = {name: outcome.records[0] for name, outcome in challenge.items()}
    assert (records["HR00001"].age_years, records["HR00001"].age_censored) == (90.0, True)
    assert {name: record.rate_hz_source for name, record in records.items() if record.rate_hz_source != 500} == {
        "I0001": 257.0,
        "S0001": 1000.0,
    }
    assert records["I0001"].resolution_uv == pytest.approx(1000 / 306)
    ecgs = dummy_ecgs(8, n_samples=3000)
    np.testing.assert_array_equal(records["E00001"].ecg_uv[:3000], ecgs[5])
    inner = slice(100, 2900)  # resampling there and back
    assert np.corrcoef(records["S0001"].ecg_uv[inner, 1], ecgs[3, inner, 1])[0, 1] > 0.99
    assert np.abs(records["I0001"].ecg_uv[inner, 1].astype(float)).max() == pytest.approx(
        np.abs(ecgs[2, inner, 1]).max(), rel=0.1
    )


def test_one_database_is_a_cohort_of_its_own() -> None:
    cohort = Challenge2021(_dummy("challenge2021"), database="ptb-xl")
    assert cohort.facts.name == "challenge2021_ptb_xl"
    assert cohort.facts.published_counts == {"records": 21_837}
    assert set(outcomes(cohort)) == {"HR00001"}
    with pytest.raises(BuildError, match=r"expected one of all, .* found 'iceland'"):
        Challenge2021(_dummy("challenge2021"), database="iceland")  # type: ignore[arg-type]


def _header(change: Callable[[str], str]) -> Callable[[Path], None]:
    return lambda path: path.write_text(change(path.read_text())) and None


BAD: dict[str, tuple[Callable[[Path], None], str, bool]] = {
    "gain of before August 2020": (_header(lambda t: t.replace("1000/mV", "4880/mV")), "gain_misprinted", True),
    "codes in words": (_header(lambda t: t.replace("426177001", "sinus")), "labels_malformed", False),
    "signals outside": (_header(lambda t: t.replace("E00001.mat 16", "../g2/E00001.mat 16")), "missing_file", False),
    "signals far outside": (
        _header(lambda t: t.replace("E00001.mat 16", "../../../../E00001.mat 16")),
        "path_outside_source",
        False,
    ),
    "a thousand million samples": (_header(lambda t: t.replace(" 3000\n", " 1000000000\n")), "truncated", False),
    "no header at all": (lambda path: path.write_bytes(b"\x00\xff" * 500) and None, "header_malformed", False),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_records_have_a_reason(case: str, tmp_path: Path) -> None:
    damage, reason, kept = BAD[case]
    source = tmp_path / "a" / "source"
    folder = source / "training" / "georgia" / "g1"
    shutil.copytree(_dummy("challenge2021") / "training" / "georgia" / "g1", folder)
    (tmp_path / "E00001.mat").write_bytes((folder / "E00001.mat").read_bytes())
    damage(folder / "E00001.hea")
    (outcome,) = outcomes(Challenge2021(source)).values()
    assert reason in outcome.reasons
    assert bool(outcome.records) == kept
    if kept:
        peak_uv = np.abs(outcome.records[0].ecg_uv[:3000]).max()
        assert peak_uv < np.abs(dummy_ecgs(8, n_samples=3000)[5]).max() / 4, "nothing is rescaled"


def test_a_folder_without_headers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"holds no WFDB header .*physionet.org/content/challenge-2021"):
        Challenge2021(tmp_path).plan()


def test_chapman_and_ningbo_share_a_numbering() -> None:
    found = outcomes(ChapmanShaoxingNingbo(_dummy("chapman_shaoxing_ningbo")))
    assert {name: outcome.records[0].site for name, outcome in found.items()} == {
        "JS00001": "chapman_shaoxing",
        "JS00344": "chapman_shaoxing",
        "JS45551": "ningbo",
    }
    assert found["JS45551"].records[0].label_codes == ("426783006", "55827005")


def test_the_challenge_form_of_cpsc2018(tmp_path: Path) -> None:
    cohort = cpsc2018(_dummy("challenge2021"), tmp_path)
    assert (cohort.facts.name, cohort.facts.label_vocabulary) == ("cpsc2018", "snomed")
    assert set(outcomes(cohort)) == {"A0001"}


def test_the_clinical_summary_of_ptb() -> None:
    found = outcomes(Ptb(_dummy("ptb")))
    record = found["s0010_re"].records[0]
    assert record.patient_id == found["s0014lre"].records[0].patient_id == "patient001"
    assert record.label_codes == (
        "Myocardial infarction",
        "acute infarction (localization): infero-latera",
        "Diabetes mellitus",
    )
    assert (record.smoker, record.diabetes, record.systolic_mmhg, record.report_raw) == (0.0, 1.0, 140.0, "")
    healthy = found["s0306lre"].records[0]
    assert healthy.label_codes == ("Healthy control",)
    assert np.isnan([healthy.smoker, healthy.diabetes, healthy.systolic_mmhg, healthy.age_years]).all()
    assert record.lead_present.all(), "i, ii … avf are leads, too"
    assert "extra_leads_dropped" in found["s0010_re"].reasons


def test_waves_of_ludb_lead_by_lead() -> None:
    found = outcomes(Ludb(_dummy("ludb")))
    record = found["1"].records[0]
    assert record.report_raw == "Rhythm: Sinus bradycardia.\nLeft ventricular hypertrophy."
    assert record.label_codes == ("Rhythm: Sinus bradycardia", "Left ventricular hypertrophy")
    for shift, lead in enumerate(["I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6"]):
        marks = [
            (sample, code)
            for sample, code, of in zip(
                record.annotation_samples, record.annotation_codes, record.annotation_leads, strict=True
            )
            if of == lead
        ]
        assert marks == [(1000 * beat + shift + offset, code) for beat in (1, 2, 3) for offset, code in WAVES]
    old = found["2"].records[0]
    assert (old.age_years, old.age_censored, old.sex) == (90.0, True, "male")


def test_a_recording_without_its_annotations_is_dropped(tmp_path: Path) -> None:
    shutil.copytree(_dummy("ludb"), tmp_path / "ludb")
    (tmp_path / "ludb" / "data" / "1.v6").unlink()
    assert outcomes(Ludb(tmp_path / "ludb"))["1"].reasons == ("missing_file",)


def test_rhythms_of_cpsc2021_fall_into_their_window() -> None:
    outcome = outcomes(Cpsc2021(_dummy("cpsc2021")))["data_7_2"]
    first, second, third = outcome.records
    assert [window.window_index for window in outcome.records] == [0, 1, 2]
    assert "(AFIB" not in first.annotation_codes
    place = second.annotation_codes.index("(AFIB")
    assert second.annotation_samples[place] == 1000, "12 s at 500 Hz, less the first window"
    beats = [outcome.annotation_samples for outcome in (first, second, third)]
    assert beats[0][:2] == (250, 650), "samples 100 and 260 at 200 Hz"
    assert all(0 <= sample < 5000 for of_window in beats for sample in of_window)
    assert (first.patient_id, first.label_codes, first.site) == (
        "7",
        ("paroxysmal atrial fibrillation",),
        "Training_set_I",
    )
    assert first.lead_present.tolist() == [True, True] + [False] * 10


def test_one_lead_of_a_hand_held_device() -> None:
    found = outcomes(Cinc2017(_dummy("cinc2017")))
    assert {name: outcome.records[0].label_codes for name, outcome in found.items()} == {
        "A00001": ("N",),
        "A00004": ("A",),
        "A00205": ("~",),
    }
    assert len(found["A00001"].records) == 3
    assert found["A00001"].records[0].lead_present.tolist() == [True] + [False] * 11


def test_modified_leads_of_mitdb() -> None:
    strict, lenient = (outcomes(Mitdb(_dummy("mitdb"), modified_ii_as_ii=taken)) for taken in (False, True))
    assert np.flatnonzero(strict["100"].records[0].lead_present).tolist() == [10], "V5"
    assert np.flatnonzero(lenient["100"].records[0].lead_present).tolist() == [1, 10]
    record = lenient["100"].records[0]
    assert (record.age_years, record.sex, record.annotation_codes[:2]) == (69.0, "male", ("(N", "N"))
    assert record.annotation_samples[1] == round(300 / 360 * 500)
