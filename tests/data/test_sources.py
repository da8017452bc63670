"""Opening prepared cohorts: rows are waveforms, versions are chosen, and every miss says what is there."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorflow_datasets as tfds
from support.tiny_cohort import tiny_ecg, tiny_record, write_cohort

from ecgclip_jax.data.sources import CohortError, open_cohort, prepared_cohorts, strictest_access
from ecgclip_jax.spec.experiment import Source


def test_rows_come_back_in_the_order_asked_for(tiny_data_dir: Path) -> None:
    opened = open_cohort(tiny_data_dir, Source(cohort="tiny"))
    rows = [49, 0, 17, 17, 33]
    np.testing.assert_array_equal(opened.read_ecg(rows), np.stack([tiny_ecg(r) for r in rows]))
    assert opened.read_ecg([]).shape == (0, 5000, 12)


def test_rows_are_those_that_tfds_itself_reads(tiny_data_dir: Path) -> None:
    theirs = tfds.builder_from_directory(str(tiny_data_dir / "tiny" / "1.0.0")).as_data_source(split="train")
    opened = open_cohort(tiny_data_dir, Source(cohort="tiny"))
    assert len(opened) == len(theirs) == 50
    np.testing.assert_array_equal(opened.read_ecg([3, 40]), [theirs[3]["ecg_uv"], theirs[40]["ecg_uv"]])
    assert opened.table.column("record_id")[40].as_py() == theirs[40]["record_id"].decode()


def test_facts_of_the_cohort_travel_with_the_split(tiny_data_dir: Path) -> None:
    opened = open_cohort(tiny_data_dir, Source(cohort="other"))
    assert (opened.name, opened.access, opened.licence) == ("other/1.0.0/train", "credentialed", "CC0-1.0")
    assert opened.data_dir == tiny_data_dir
    assert prepared_cohorts(tiny_data_dir) == {"other": ["1.0.0"], "tiny": ["1.0.0"]}


def test_strictest_access() -> None:
    assert strictest_access(["open", "credentialed", "registered"]) == "credentialed"
    assert strictest_access(["private", "credentialed"]) == "private"
    assert strictest_access([]) == "open"


def test_a_reader_that_was_used_pickles_small_and_still_reads(tiny_data_dir: Path) -> None:
    reader = open_cohort(tiny_data_dir, Source(cohort="tiny")).waveforms
    reader.read([0])
    pickled = pickle.dumps(reader)
    assert len(pickled) < 1000
    np.testing.assert_array_equal(pickle.loads(pickled).read([5])[0], tiny_ecg(5))


def test_fingerprint_follows_the_content(tmp_path: Path) -> None:
    def fingerprint(folder: str, report: str) -> str:
        write_cohort(tmp_path / folder, {"train": [tiny_record(0), tiny_record(1, report=report)]})
        return open_cohort(tmp_path / folder, Source(cohort="tiny")).fingerprint

    assert fingerprint("a", "Normal ECG.") == fingerprint("b", "Normal ECG.")
    assert fingerprint("c", "Normal  ECG.") != fingerprint("a2", "Normal ECG.")


def test_the_newest_version_is_taken_by_number_and_half_built_ones_are_not(tmp_path: Path) -> None:
    for version in ("1.9.0", "1.10.0"):
        write_cohort(tmp_path, {"train": [tiny_record(0)]}, version=version)
    (tmp_path / "tiny" / "2.0.0").mkdir()
    shutil.copytree(tmp_path / "tiny" / "1.9.0", tmp_path / "tiny" / "3.0.0.incomplete")
    assert open_cohort(tmp_path, Source(cohort="tiny")).version == "1.10.0"
    assert open_cohort(tmp_path, Source(cohort="tiny", version="1.9.0")).version == "1.9.0"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (Source(cohort="ptb_xl"), r"no prepared cohort 'ptb_xl'.*there: other, tiny.*ecgclip prepare ptb_xl"),
        (Source(cohort="tiny", version="9.9.9"), r"tiny has no version 9\.9\.9.*there: 1\.0\.0"),
        (Source(cohort="tiny", split="exam"), r"no split 'exam'; it has train, validation"),
    ],
)
def test_a_miss_says_what_is_there(tiny_data_dir: Path, source: Source, message: str) -> None:
    with pytest.raises(CohortError, match=message):
        open_cohort(tiny_data_dir, source)


def test_files_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    folder = write_cohort(tmp_path, {"train": [tiny_record(n) for n in range(4)]})
    path = folder / "records-train.parquet"
    table = pq.read_table(path)
    pq.write_table(table.take([1, 0, 2, 3]), path)
    with pytest.raises(CohortError, match="row 0 of the records table is not waveform 0"):
        open_cohort(tmp_path, Source(cohort="tiny"))
    pq.write_table(table.slice(0, 3), path)
    with pytest.raises(CohortError, match="3 rows, the shards hold 4"):
        open_cohort(tmp_path, Source(cohort="tiny"))
    pq.write_table(table.drop_columns(["report_raw"]), path)
    with pytest.raises(CohortError, match="lacks report_raw"):
        open_cohort(tmp_path, Source(cohort="tiny"))


@pytest.mark.parametrize("text", ["{", '{"access": "secret", "licence": "x"}', '{"access": "open"}'])
def test_a_broken_cohort_file_is_named(tmp_path: Path, text: str) -> None:
    folder = write_cohort(tmp_path, {"train": [tiny_record(0)]})
    (folder / "cohort.json").write_text(text)
    with pytest.raises(CohortError, match=r"cohort\.json.*prepare the cohort again"):
        open_cohort(tmp_path, Source(cohort="tiny"))


def test_a_damaged_shard_is_named(tmp_path: Path) -> None:
    folder = write_cohort(tmp_path, {"train": [tiny_record(n) for n in range(4)]})
    shard = next(folder.glob("*array_record*"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 20000] = bytes(20000)
    shard.write_bytes(content)
    with pytest.raises(CohortError, match=r"train: rows .* cannot be read from the shards"):
        open_cohort(tmp_path, Source(cohort="tiny")).read_ecg([0, 1, 2, 3])


def test_it_opens_and_reads_without_jax(tiny_data_dir: Path) -> None:
    script = (
        "import sys; sys.modules['jax'] = None\n"
        "from ecgclip_jax.data.sources import open_cohort; from ecgclip_jax.spec.experiment import Source\n"
        "print(open_cohort(sys.argv[1], Source(cohort='tiny')).read_ecg([7])[0, 0, 0])"
    )
    run = subprocess.run([sys.executable, "-c", script, str(tiny_data_dir)], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "7"
