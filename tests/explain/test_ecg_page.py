"""The ECG page read back from its own drawing: each lead in its own place, in millimetres, once."""

from __future__ import annotations

import io

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ecgclip_jax.explain.ecg_page import draw_ecg, draw_ecg_page
from ecgclip_jax.spec.signal import LEADS_12, MISSING_UV


def coded_ecg() -> np.ndarray:
    """Each lead rests at zero but for pulses whose height names the lead and whose position names the second."""
    ecg_uv = np.zeros((5000, 12), np.int16)
    for lead in range(12):
        for second in range(10):
            ecg_uv[500 * second + 100 : 500 * second + 110, lead] = 100 * (lead + 1) + second
    return ecg_uv


def cells(figure: Figure) -> dict[str, Axes]:
    paper = figure.axes[0]
    by_label = {cell.get_label(): cell for cell in paper.child_axes}
    assert len(by_label) == len(paper.child_axes), "a lead is drawn twice"
    return by_label


def trace(cell: Axes) -> np.ndarray:
    return np.asarray(cell.lines[0].get_xydata())


def words(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in figure.texts)


def test_each_lead_stands_in_its_own_cell_with_its_own_values() -> None:
    ecg_uv = coded_ecg()
    figure = draw_ecg_page(ecg_uv)
    drawn = cells(figure)
    assert set(drawn) == {*LEADS_12, "II rhythm"}
    for index, lead in enumerate(LEADS_12):
        column = index // 3
        xy = trace(drawn[lead])
        seconds = np.arange(1250 * column, 1250 * (column + 1)) / 500
        np.testing.assert_allclose(xy[:, 0], (seconds - 2.5 * column) * 25)
        np.testing.assert_allclose(xy[:, 1], ecg_uv[1250 * column : 1250 * (column + 1), index] / 1000 * 10)
        assert drawn[lead].texts[-1].get_text() == lead
    strip = trace(drawn["II rhythm"])
    np.testing.assert_allclose(strip[:, 0], np.arange(5000) / 500 * 25)
    np.testing.assert_allclose(strip[:, 1], ecg_uv[:, 1] / 100)


def test_paper_is_true_size_and_columns_are_aligned_in_time() -> None:
    figure = draw_ecg_page(coded_ecg())
    assert np.allclose(figure.get_size_inches() * 25.4, (297, 210))
    paper = figure.axes[0]
    figure.draw_without_rendering()
    mm = 25.4 / figure.dpi
    box = paper.get_window_extent()
    assert box.width * mm == pytest.approx(paper.get_xlim()[1], abs=0.05)
    assert box.height * mm == pytest.approx(paper.get_ylim()[1], abs=0.05)
    drawn = cells(figure)
    lefts = {lead: drawn[lead].get_window_extent().x0 * mm for lead in (*LEADS_12, "II rhythm")}
    for first, second in (("I", "aVR"), ("aVR", "V1"), ("V1", "V4")):
        assert lefts[second] - lefts[first] == pytest.approx(62.5, abs=0.01)
    assert lefts["I"] == lefts["II"] == lefts["III"] == lefts["II rhythm"]
    assert lefts["V4"] == lefts["V5"] == lefts["V6"]


def test_calibration_pulse_is_one_millivolt_high() -> None:
    for gain in (10.0, 5.0):
        pulses = list(draw_ecg_page(coded_ecg(), gain_mm_mv=gain).axes[0].lines)
        assert len(pulses) == 4
        for pulse in pulses:
            assert np.ptp(pulse.get_ydata()) == gain
            assert pulse.get_ydata()[0] % 5 == 0, "the base line lies on a bold line"


def test_gaps_break_the_line_and_a_missing_lead_says_so() -> None:
    ecg_uv = coded_ecg()
    ecg_uv[200:300, 0] = MISSING_UV
    ecg_uv[:, 7] = MISSING_UV
    ecg_uv[2500:3750, 6] = MISSING_UV
    figure = draw_ecg_page(ecg_uv)
    drawn = cells(figure)
    lead_i = trace(drawn["I"])[:, 1]
    assert np.isnan(lead_i[200:300]).all()
    assert np.isfinite(np.delete(lead_i, np.s_[200:300])).all()
    assert "not recorded" in [text.get_text() for text in drawn["V2"].texts]
    assert "no signal here" in [text.get_text() for text in drawn["V1"].texts]
    assert not any("recorded" in text.get_text() for text in drawn["V3"].texts)
    assert "quality: check" in words(figure)
    assert "missing lead" in words(figure)


def test_a_resting_level_is_taken_off_and_nothing_else() -> None:
    ecg_uv = coded_ecg()
    shifted = np.asarray(ecg_uv + 3000, np.int16)
    for lead in ("I", "V5"):
        np.testing.assert_allclose(
            trace(cells(draw_ecg_page(shifted))[lead]), trace(cells(draw_ecg_page(ecg_uv))[lead])
        )


def test_text_line_states_speed_gain_band_source_and_purpose() -> None:
    figure = draw_ecg_page(
        coded_ecg(),
        title="record 7",
        lines=("prompt: sinus rhythm",),
        quality_flags=(),
        rate_hz_source=1000.0,
        band_hz=(0.05, 150.0),
    )
    for part in (
        "25 mm/s",
        "10 mm/mV",
        "band 0.05–150 Hz",
        "recorded at 1000 Hz, stored at 500 Hz",
        "research use, not a medical device",
        "quality: nothing suspicious",
        "record 7",
        "prompt: sinus rhythm",
    ):
        assert part in words(figure)
    unknown = words(draw_ecg_page(coded_ecg(), rate_hz_source=500.0, band_hz=(float("nan"), None)))
    assert "band not stated" in unknown
    assert "recorded at 500 Hz" in unknown
    assert "band up to 40 Hz" in words(draw_ecg_page(coded_ecg(), band_hz=(None, 40.0)))


def test_layouts_speeds_and_cabrera_order() -> None:
    ecg_uv = coded_ecg()
    fast = draw_ecg_page(ecg_uv, speed_mm_s=50.0)
    assert fast.get_size_inches()[0] * 25.4 > 500
    assert trace(cells(fast)["V6"])[-1, 0] == pytest.approx(125, abs=0.2)
    assert "50 mm/s" in words(fast)
    drawn = cells(draw_ecg_page(ecg_uv, layout="6x2", cabrera=True))
    order = sorted(LEADS_12[:6], key=lambda lead: -drawn[lead].get_position().y0)
    assert order == ["aVL", "I", "aVR", "II", "aVF", "III"]
    np.testing.assert_allclose(trace(drawn["aVR"])[:, 1], -ecg_uv[:2500, 3] / 100)
    assert drawn["aVR"].texts[-1].get_text() == "−aVR"
    assert set(cells(draw_ecg_page(ecg_uv, layout="12x1"))) == set(LEADS_12)


@pytest.mark.parametrize("file_format", ["png", "svg", "pdf"])
def test_pages_and_contact_sheets_are_written(file_format: str) -> None:
    sheet = Figure(figsize=(6, 3))
    for axes in sheet.subplots(1, 2):
        draw_ecg(axes, coded_ecg(), title="sinus rhythm")
        assert {cell.get_label() for cell in axes.child_axes} == {*LEADS_12, "II rhythm"}
    for figure in (draw_ecg_page(coded_ecg()), sheet):
        target = io.BytesIO()
        figure.savefig(target, format=file_format, dpi=50)
        assert len(target.getvalue()) > 2000
