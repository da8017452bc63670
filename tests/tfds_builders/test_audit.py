"""The audit: what a cohort holds and how its signals measure; above access class open nothing of a person."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from ecgclip_jax.spec.pseudonyms import KEY_FILE, pseudonym
from tfds_builders.common.build import build
from tfds_builders.common.cohort import CohortFacts
from tfds_builders.common.disclosure import disclosable_counts
from tfds_builders.ptb_xl.cohort import FACTS, PtbXl
from tfds_builders.ptb_xl.make_dummy_data import dummy_ecgs, dummy_row, write_signals, write_table

N = 24


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 ECGs: a flat lead (1), one ten times too large (2), a copy (4 of 3), an empty report (5), no file (6)."""
    folder = tmp_path_factory.mktemp("audited")
    rows = [dummy_row(i, patient_id=i // 2, fold=10 if i >= 20 else 1) for i in range(1, N + 1)]
    rows[4]["report"] = ""
    rows[4]["scp_codes"] = "{}"
    ecgs = dummy_ecgs(N)
    ecgs[0, :, 8] = 0
    ecgs[1] *= 10
    ecgs[3] = ecgs[2]
    for row, ecg_uv in zip(rows, ecgs, strict=True):
        write_signals(folder, row, ecg_uv)
    (folder / f"{rows[5]['filename_hr']}.dat").unlink()
    write_table(folder, rows)
    return folder


class _Credentialed(PtbXl):
    @property
    def facts(self) -> CohortFacts:
        published = {"records": N, "patients": 12, "records/test": 6, "label/NORM": 30, "label/XYZ": 1}
        return replace(FACTS, name="guarded", access="credentialed", published_counts=published)


@pytest.fixture(scope="module")
def opened(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(PtbXl(source), tmp_path_factory.mktemp("open"), workers=0).folder


@pytest.fixture(scope="module")
def guarded(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(_Credentialed(source), tmp_path_factory.mktemp("guarded"), workers=0).folder


def _audit(folder: Path) -> dict[str, Any]:
    audit: dict[str, Any] = json.loads((folder / "audit.json").read_text())
    return audit


def test_counts_of_what_is_there(opened: Path) -> None:
    audit = _audit(opened)
    assert audit["size"] == {
        "ecgs": 23, "recordings": 23, "recordings_of_several_windows": 0, "patients": 13,
        "recordings_of_unknown_patients": 0,
    }  # fmt: skip
    assert audit["labels"] == {"NORM": 22, "SR": 22}
    assert audit["recordings_without_label"] == 1
    assert audit["reports"]["empty"] == 1
    assert audit["copies"] == {"waveforms": 1, "recordings": 2, "waveforms_in_several_splits": 0}
    assert audit["leads_present"] == {"12": 23}
    assert audit["flags"] == {"flat_lead": 1, "amplitude_suspect_unit": 1}
    people = audit["people"]["age_by_sex"]
    assert sum(n for of_band in people.values() for n in of_band.values()) == 23
    assert audit["leakage"] == [], "too few patients to tell anything"


def test_signals_are_measured(opened: Path, source: Path) -> None:
    signal = _audit(opened)["signal"]
    assert signal["sampled"] == 23
    ecgs = np.delete(dummy_ecgs(N), [5], axis=0).astype(float)
    ecgs[0, :, 8], ecgs[1], ecgs[3] = 0, ecgs[1] * 10, ecgs[2]
    highest = ecgs.max(axis=(1, 2))
    np.testing.assert_allclose(signal["quantiles"]["highest_uv"][::3], np.quantile(highest, (0, 0.5, 1)), atol=1)
    assert signal["quantiles"]["missing_percent"][-1] == 0.0
    assert signal["quantiles"]["einthoven_residual_rms_uv"][-1] < 1e-6
    examples = {e["flag"]: e for e in signal["examples"]}
    assert {flag: e["record_id"] for flag, e in examples.items()} == {"flat_lead": "1", "amplitude_suspect_unit": "2"}
    assert "V3" in examples["flat_lead"]["message"]


def test_published_counts_are_compared(guarded: Path) -> None:
    published = _audit(guarded)["published"]
    assert published["records"] == {"published": N, "found": N}
    assert published["patients"]["found"] == 13
    assert published["label/NORM"] == {"published": 30, "found": 22}
    assert published["records/test"]["found"] == "<10"
    assert published["label/XYZ"] == {"published": "<10", "found": 0}


def test_above_open_no_id_no_text_no_small_cell(guarded: Path) -> None:
    audit = _audit(guarded)
    assert audit["signal"]["examples"] == []
    assert audit["signal"]["quantiles"]
    assert audit["outcomes"]["flagged"] == audit["outcomes"]["dropped"] == "<10"
    assert audit["outcomes"]["kept"] > 10
    assert audit["copies"]["waveforms"] == "<10"
    rows = pq.read_table(guarded / "audit.parquet").to_pylist()
    key = bytes.fromhex((guarded.parent.parent / KEY_FILE).read_text())
    assert [row["record_id"] for row in rows] == [pseudonym(key, "guarded", "record", str(i)) for i in range(1, N + 1)]
    assert {row["detail"] for row in rows} == {""}
    assert next(row["reasons"] for row in rows if row["outcome"] == "dropped") == ["missing_file"]


def test_open_audits_name_what_they_found(opened: Path) -> None:
    dropped = [r for r in pq.read_table(opened / "audit.parquet").to_pylist() if r["outcome"] == "dropped"]
    assert [row["record_id"] for row in dropped] == ["6"]
    assert "records500" in dropped[0]["detail"]
    assert not (opened.parent.parent / KEY_FILE).exists()


def test_only_counts_are_suppressed() -> None:
    guarded = replace(FACTS, access="private")
    value = {"a": 9, "b": 10, "c": 0, "d": 3.0, "e": [1, "x"], "f": True, "g": {"h": 5}}
    assert disclosable_counts(value, FACTS) == value
    assert disclosable_counts(value, guarded) == {
        "a": "<10", "b": 10, "c": 0, "d": 3.0, "e": ["<10", "x"], "f": True, "g": {"h": "<10"},
    }  # fmt: skip
