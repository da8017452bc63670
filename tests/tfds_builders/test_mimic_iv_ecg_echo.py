"""MIMIC-IV-ECG with echo targets: which ECG belongs to which echo, what an echo found, and what it cannot tell."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from support.outcomes import outcomes

import tfds_builders
from tfds_builders.common.cohort import BuildError
from tfds_builders.mimic_iv_ecg.make_dummy_data import Study, write_lookalike
from tfds_builders.mimic_iv_ecg.tables import echo_number
from tfds_builders.mimic_iv_ecg_echo.cohort import MimicIvEcgEcho
from tfds_builders.mimic_iv_ecg_echo.echo import Echo, PairingRule, findings, numbers, paired
from tfds_builders.mimic_iv_ecg_echo.make_dummy_data import echo_rows, write_echo

DUMMY = Path(tfds_builders.__file__).parent / "mimic_iv_ecg_echo" / "dummy_data"
DAY_S = 86400.0


def test_targets_of_the_dummy() -> None:
    found = outcomes(MimicIvEcgEcho(DUMMY))
    failing, healthy, unmeasured = (found[Study(i).study_id].records[0] for i in range(3))
    told = dict(zip(failing.measurement_names, failing.measurement_values, strict=True))
    assert (told["lvef_percent"], told["echo_gap_days"]) == (35.0, 2.0)
    assert told["tr_max_velocity_m_s"] == pytest.approx(3.4)
    assert "rr_interval_ms" in told, "the ECG machine's measurements stay"
    assert failing.measurement_names.count("lvef_percent") == 1
    assert failing.label_codes == (
        "lvef_lte_45_flag",
        "rv_systolic_dysfunction_moderate_or_greater_flag",
        "tr_max_gte_32_flag",
    )
    assert (healthy.label_codes, healthy.label_vocabulary) == (("no_flag",), "mimic_iv_echo")
    assert unmeasured.label_codes == (), "without an LVEF an echo labels nothing"
    assert "tapse_cm" in unmeasured.measurement_names
    assert failing.report_raw.startswith("Sinus rhythm")


def _pairs(ecg_days: Sequence[float], echo_days: Sequence[float], rule: PairingRule) -> list[tuple[int, float, float]]:
    """ECG, day of its echo, gap."""
    studies = {"s": [Echo(day * DAY_S, {"lvef": "50"}) for day in echo_days]}
    found = paired(["s"] * len(ecg_days), [day * DAY_S for day in ecg_days], studies, rule)
    return [(i, pair[0].time_s / DAY_S, round(pair[1], 6)) for i, pair in enumerate(found) if pair is not None]


@pytest.mark.parametrize(
    ("ecgs", "echoes", "rule", "expected"),
    [
        ((0, 9, 40), (10,), PairingRule(), [(1, 10, 1)]),
        ((0, 9, 40), (10,), PairingRule(pairing="every_ecg"), [(0, 10, 10), (1, 10, 1), (2, 10, -30)]),
        ((0, 9, 11), (10,), PairingRule(pairing="every_ecg", ecg_first=True), [(0, 10, 10), (1, 10, 1)]),
        ((9, 11), (10,), PairingRule(), [(0, 10, 1)]),
        ((5, 11), (10,), PairingRule(ecg_first=True), [(0, 10, 5)]),
        ((10,), (4, 8, 12), PairingRule(), [(0, 8, -2)]),
        ((0, 20), (1, 19), PairingRule(), [(0, 1, 1), (1, 19, -1)]),
        ((0,), (31,), PairingRule(), []),
        ((0,), (300,), PairingRule(365, "every_ecg", ecg_first=True), [(0, 300, 300)]),
    ],
)
def test_which_ecg_belongs_to_which_echo(
    ecgs: Sequence[float], echoes: Sequence[float], rule: PairingRule, expected: list[tuple[int, float, float]]
) -> None:
    assert _pairs(ecgs, echoes, rule) == expected


def test_echos_of_other_people_and_unknown_times() -> None:
    studies = {"a": [Echo(0.0, {"lvef": "50"})]}
    assert paired(["b", "a", "a"], [0.0, None, 0.0], studies, PairingRule())[:2] == [None, None]


@pytest.mark.parametrize(
    ("text", "number"),
    [("55", 55.0), ("55-60", 57.5), (">55%", 55.0), (" 30 - 35 %", 32.5), ("normal", None), ("", None), ("-5", None)],
)
def test_numbers_as_echo_reports_write_them(text: str, number: float | None) -> None:
    assert echo_number(text) == number


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        ({"lvef": "45"}, ("lvef_lte_45_flag",)),
        ({"lvef": "45-50"}, ("no_flag",)),
        ({"lvef": "60", "ivs_thickness": "1.3"}, ("lvwt_gte_13_flag",)),
        ({"lvef": "60", "inferolateral_thickness": "13"}, ("no_flag",)),
        ({"lvef": "60", "rv_function": "Mild global RV hypo"}, ("no_flag",)),
        ({"lvef": "60", "rv_function": "RV function depressed"}, ("rv_systolic_dysfunction_moderate_or_greater_flag",)),
        ({"lvef": "60", "pericardial_effusion": "Small-moderate"}, ("no_flag",)),
        ({"lvef": "60", "pericardial_effusion": "Large (>2.0cm)"}, ("pericardial_effusion_moderate_large_flag",)),
        ({"lvef": "60", "tr_velocity": "3.19"}, ("no_flag",)),
        ({"tr_velocity": "4"}, ()),
        ({"lvef": "200"}, ()),
    ],
)
def test_findings_have_echonext_s_thresholds(results: dict[str, str], expected: tuple[str, ...]) -> None:
    assert findings(results) == expected


def test_a_number_in_another_unit_is_left_out() -> None:
    assert numbers({"ivs_thickness": "13", "tapse": "1.8"}) == {"tapse_cm": 1.8}


def test_ecgs_without_an_echo_near_are_dropped_and_counted(tmp_path: Path) -> None:
    studies = write_lookalike(tmp_path, 4)
    with pytest.raises(BuildError, match=r"structured-measurement\.csv"):
        MimicIvEcgEcho(tmp_path).plan()
    write_echo(
        tmp_path,
        [
            *echo_rows(studies[0], 3, {"lvef": "50"}, "m1"),
            *echo_rows(studies[1], 31, {"lvef": "50"}, "m2"),
            *echo_rows(studies[2], 1, {"lvef": "30"}, "m3", test_type="stress"),
            *echo_rows(studies[3], 1, {"height_cm": "170"}, "m4"),
        ],
    )
    found = outcomes(MimicIvEcgEcho(tmp_path))
    assert found[studies[0].study_id].records
    assert {found[study.study_id].reasons for study in studies[1:]} == {("no_echo_near",)}
    wider = outcomes(MimicIvEcgEcho(tmp_path, echo_window_days=365, ecg_first=True))
    assert wider[studies[1].study_id].records
