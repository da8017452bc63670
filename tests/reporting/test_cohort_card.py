"""A cohort's card: everything of an open cohort, nothing of a person above it, and what it shares is loud."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from ecgclip_jax.cli.main import main
from ecgclip_jax.reporting.cohort_card import write_card
from tfds_builders.common.build import build
from tfds_builders.common.cohort import CohortFacts
from tfds_builders.ptb_xl.cohort import FACTS, PtbXl
from tfds_builders.ptb_xl.make_dummy_data import dummy_ecgs, dummy_row, write_signals, write_table


class _Guarded(PtbXl):
    """The same recordings as if a hospital had them."""

    @property
    def facts(self) -> CohortFacts:
        return replace(FACTS, name="guarded", access="private", published_counts={"records": 99})


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PTB-XL and a private cohort of the same twelve recordings in one data directory; record 1 has a flat lead."""
    source, data_dir = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("data")
    rows = [dummy_row(7000 + i, fold=10 if i > 9 else 1) | {"report": f"sinus rhythm <b>{i}</b>"} for i in range(12)]
    ecgs = dummy_ecgs(12)
    ecgs[0, :, 8] = 0
    for row, ecg_uv in zip(rows, ecgs, strict=True):
        write_signals(source, row, ecg_uv)
    write_table(source, rows)
    words = ["prepare", "ptb_xl", "--source", str(source), "--data-dir", str(data_dir), "--workers", "0"]
    assert main(words) == 0
    write_card(build(_Guarded(source), data_dir, workers=0).folder)
    return data_dir


def test_an_open_card_shows_what_is_odd(data_dir: Path) -> None:
    page = (data_dir / "ptb_xl" / "1.0.3" / "card.html").read_text()
    for word in (
        "PTB-XL",
        "Creative Commons",
        "NORM",
        "Normal ECG",
        "flat lead",
        "no heart visible in V3",
        "by age and sex",
    ):
        assert word.lower() in page.lower(), word
    assert page.count("data:image/png;base64,") == 1
    assert "<script" not in page
    assert 'src="http' not in page
    assert "<link" not in page


def test_a_private_card_holds_no_waveform_text_or_id(data_dir: Path) -> None:
    folder = data_dir / "guarded" / "1.0.3"
    page = (folder / "card.html").read_text()
    assert "data:image/png" not in page
    audit = (folder / "audit.json").read_text()
    for number in range(12):
        assert str(7000 + number) not in page + audit
    assert "sinus rhythm" not in page + audit
    assert "&lt;10" in page
    assert "Access class private" in page
    assert "Other counts than published: records" in page


def test_what_reports_give_away_is_on_the_card(data_dir: Path, tmp_path: Path) -> None:
    assert "not taken: too few patients" in (data_dir / "ptb_xl" / "1.0.3" / "card.html").read_text()
    folder = Path(shutil.copytree(data_dir / "ptb_xl" / "1.0.3", tmp_path / "ptb_xl" / "1.0.3"))
    audit = json.loads((folder / "audit.json").read_text())
    told = {"target": "hospital", "n_reports": 700, "n_patients": 400, "classes": ["north", "south"], "too_few": ""}
    measured = {"accuracy": 0.97, "accuracy_majority": 0.61, "auroc": 0.989, "auroc_sd": 0.012, "telling": ["msec"]}
    untold = {"target": "sex", "n_reports": 700, "n_patients": 400, "classes": [], "too_few": "0 classes of 30"}
    audit["leakage"] = [told | measured, untold | dict.fromkeys(measured) | {"telling": []}]
    (folder / "audit.json").write_text(json.dumps(audit))
    page = write_card(folder).read_text()
    for word in ("Leakage gauge", "north, south", "0.99 ± 0.01", "(0.61)", "msec", "0 classes of 30"):
        assert word in page, word
    assert "not taken" not in page


def test_shared_recordings_are_loud(data_dir: Path) -> None:
    shared = json.loads((data_dir / "guarded" / "1.0.3" / "overlap.json").read_text())
    assert [(row["cohort"], row["waveforms"], row["records"]) for row in shared] == [("ptb_xl", 12, 12)]
    page = (data_dir / "guarded" / "1.0.3" / "card.html").read_text()
    assert "12 recordings are also in ptb_xl 1.0.3" in page
    assert json.loads((data_dir / "ptb_xl" / "1.0.3" / "overlap.json").read_text()) == [], "it was alone then"


def test_one_way_of_building_at_a_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["prepare", "synthetic_ecg", "--data-dir", str(tmp_path), "--shards", "0/2", "--merge"]
    assert main(words) == 2
    assert "one at a time" in capsys.readouterr().err


def test_array_jobs_and_a_merge_by_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["prepare", "synthetic_ecg", "--size", "100", "--data-dir", str(tmp_path), "--workers", "0"]
    assert main([*words, "--shards", "0:1/2"]) == 0
    assert "2 shards are left" in capsys.readouterr().out
    assert main([*words, "--merge"]) == 2
    assert "--shards 2:4/4" in capsys.readouterr().err
    assert main([*words, "--shards", "1/2"]) == 0
    assert main([*words, "--merge"]) == 0
    assert "Synthetic: this is no patient data" in next(tmp_path.rglob("card.html")).read_text()
