"""`ecgclip prepare NAME` on every builder's own dummy data: what can be counted is counted, everything can be read."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorflow_datasets as tfds

import tfds_builders
from ecgclip_jax.cli.cohort_arguments import ARGUMENTS
from ecgclip_jax.cli.main import main
from tfds_builders.common.cohort import BuildError
from tfds_builders.registry import BUILDERS, DECLARED, make_cohort

ROOT = Path(tfds_builders.__file__).parent
FROM_FILES = tuple(name for name in BUILDERS if not name.startswith("synthetic_"))
OWN = ("table_folder", "wfdb_folder")
"""A user's own cohorts, whose citation is theirs."""
ACCESS = {"open", "registered", "credentialed", "private"}


@pytest.mark.parametrize("name", FROM_FILES)
def test_prepare_runs_on_dummy_data(name: str, tmp_path: Path) -> None:
    dummy = ROOT / name / "dummy_data"
    assert main(["prepare", name, "--source", str(dummy), "--data-dir", str(tmp_path), "--workers", "0"]) == 0
    (folder,) = (path.parent for path in tmp_path.glob("*/*/cohort.json"))
    facts = json.loads((folder / "cohort.json").read_text())
    assert sum(facts["outcomes"].values()) == facts["source_rows"] > 0
    assert facts["outcomes"]["dropped"] == 0
    assert facts["access"] in ACCESS
    assert facts["licence"]
    builder = tfds.builder_from_directory(str(folder))
    for split, n_records in facts["splits"].items():
        waveforms = builder.as_data_source(split=split)
        rows = pq.read_table(folder / f"records-{split}.parquet").to_pylist()
        assert len(waveforms) == len(rows) == n_records
        assert waveforms[0]["record_id"].decode() == rows[0]["record_id"]
        assert np.array_equal((waveforms[0]["ecg_uv"] != -32768).any(axis=0), rows[0]["lead_present"])
        for row in rows:
            assert row["patient_id_known"] == bool(row["patient_id"])
            assert len(row["label_codes"]) == len(row["label_values"])
            assert len(row["measurement_names"]) == len(row["measurement_values"])
            assert len(row["annotation_codes"]) == len(row["annotation_samples"]) == len(row["annotation_leads"])


@pytest.mark.parametrize("name", FROM_FILES)
def test_a_builder_is_whole(name: str) -> None:
    package = ROOT / name
    readme = (package / "README.md").read_text()
    assert f"ecgclip prepare {name}" in readme
    assert "@" in (package / "CITATIONS.bib").read_text() or name in OWN
    facts = import_module(f"tfds_builders.{name}.cohort").FACTS
    assert facts.name == name
    assert (package / "make_dummy_data.py").is_file()
    size = sum(path.stat().st_size for path in (package / "dummy_data").rglob("*") if path.is_file())
    assert size < 1_000_000, "dummy data travel with every checkout"


def test_the_command_knows_every_builder() -> None:
    assert tuple(ARGUMENTS) == BUILDERS


@pytest.mark.parametrize("name", ["nobody", *DECLARED])
def test_what_has_no_builder_is_refused_by_name(name: str, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=name):
        make_cohort(name, None, tmp_path)
