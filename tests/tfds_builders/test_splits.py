"""Splits that we make: by patient, by label, the same for ever; lists that nobody edits; nested few-shot subsets."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

import numpy as np
import pytest

from tfds_builders.common.build import build
from tfds_builders.common.cohort import BuildError
from tfds_builders.common.splits import (
    few_shot_subsets,
    read_id_lists,
    stratified_splits,
    write_id_lists,
)
from tfds_builders.ptb_xl.cohort import PtbXl
from tfds_builders.ptb_xl.make_dummy_data import dummy_ecgs, dummy_row, write_signals, write_table


def _world(n: int = 1000) -> dict[str, set[str]]:
    """Patients with labels from common to rare, some of which go together."""
    rng = np.random.default_rng(0)
    labels: dict[str, set[str]] = {f"p{i}": set() for i in range(n)}
    for code, share in (("NORM", 0.5), ("AFIB", 0.08), ("WPW", 0.006), ("RARE", 0.003)):
        for i in rng.choice(n, round(share * n), replace=False):
            labels[f"p{i}"] |= {code, "ABNORMAL"} if code != "NORM" else {code}
    return labels


def _positives(split_of: dict[str, str], labels: dict[str, Collection[str]], code: str) -> dict[str, int]:
    counts = {"train": 0, "validation": 0, "test": 0}
    for patient, of_patient in labels.items():
        counts[split_of[patient]] += code in of_patient
    return counts


def test_every_label_has_its_share_in_every_split() -> None:
    labels = _world()
    made = stratified_splits(labels)
    split_of = dict(made.split_of)
    assert split_of.keys() == labels.keys()
    sizes = [list(split_of.values()).count(split) for split in ("train", "validation", "test")]
    assert np.abs(np.array(sizes) - [800, 100, 100]).max() <= 12
    for code, n in (("NORM", 500), ("AFIB", 80)):
        found = _positives(split_of, labels, code)
        assert np.abs(np.array(list(found.values())) - np.array([0.8, 0.1, 0.1]) * n).max() <= 3, (code, found)
    for code in ("WPW", "RARE"):
        assert min(_positives(split_of, labels, code).values()) >= 1, "six and three patients reach three splits"
    assert made.rule.labels_not_everywhere == ()


def test_what_cannot_be_everywhere_is_named() -> None:
    labels: dict[str, Collection[str]] = {f"p{i}": {"NORM"} for i in range(50)} | {"a": {"ONE"}, "b": {"TWO"}}
    labels["c"] = {"TWO"}
    made = stratified_splits(labels)
    assert made.rule.labels_not_everywhere == ("ONE", "TWO")
    assert {made.split_of["b"], made.split_of["c"]} == {"train", "test"}


def test_order_does_not_matter_and_the_seed_does() -> None:
    labels = _world(300)
    made = stratified_splits(labels)
    assert stratified_splits(dict(reversed(labels.items()))).split_of == made.split_of
    assert stratified_splits(labels, seed=1).split_of != made.split_of


def test_no_labels_still_gives_shares() -> None:
    made = stratified_splits({f"p{i}": () for i in range(40)}, {"a": 3, "b": 1})
    assert list(made.split_of.values()).count("b") == 10
    with pytest.raises(BuildError, match="positive"):
        stratified_splits({"p": ()}, {"a": 0.0})


def test_few_shot_subsets_are_nested_whole_patients() -> None:
    pairs = [(f"r{i}", f"p{i // 3}") for i in range(600)] + [(f"x{i}", "") for i in range(100)]
    subsets = few_shot_subsets(pairs)
    small, large = subsets[0.01], subsets[0.1]
    assert set(small) < set(large)
    patient = dict(pairs)
    patients = {patient[r] or r for r in large}
    assert len(patients) == 30
    assert {r for r, p in pairs if (p or r) in patients} == set(large)
    assert few_shot_subsets(list(reversed(pairs)))[0.1] == list(reversed(large))
    assert set(few_shot_subsets(pairs, seed=1)[0.1]) != set(large)


def test_lists_come_back_and_edited_ones_are_refused(tmp_path: Path) -> None:
    sums = write_id_lists(tmp_path, {"train": ["b", "a", "b"], "test": ["c"]})
    assert set(sums) == {"train", "test"}
    assert read_id_lists(tmp_path) == {"train": ("b", "a"), "test": ("c",)}
    path = tmp_path / "splits" / "test.txt"
    path.write_text("c\nd\n")
    with pytest.raises(BuildError, match="never edited"):
        read_id_lists(tmp_path / "splits")
    path.unlink()
    with pytest.raises(BuildError, match=r"test\.txt"):
        read_id_lists(tmp_path)
    with pytest.raises(BuildError, match="found none"):
        read_id_lists(tmp_path / "elsewhere")
    with pytest.raises(BuildError, match="line"):
        write_id_lists(tmp_path, {"train": ["a\nb"]})


class _Unsplit(PtbXl):
    """PTB-XL as if its authors had made no folds."""

    stratify = {"train": 0.6, "validation": 0.2, "test": 0.2}  # noqa: RUF012


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unsplit")
    rows = [dummy_row(i, patient_id=i // 2, fold=1) for i in range(1, 11)]
    rows[0]["scp_codes"] = "not a dict"
    for row, ecg_uv in zip(rows, dummy_ecgs(len(rows)), strict=True):
        write_signals(folder, row, ecg_uv)
    write_table(folder, rows)
    return folder


def test_a_cohort_without_official_splits_gets_frozen_ones(source: Path, tmp_path: Path) -> None:
    built = build(_Unsplit(source), tmp_path / "first", workers=0)
    rule = built.cohort["split_rule"]
    assert rule["kind"] == "stratified"
    lists = read_id_lists(built.folder)
    assert {"train", "validation", "test", "train-1pct", "train-10pct"} == set(lists)
    assert sum(len(lists[split]) for split in ("train", "validation", "test")) == 9
    assert all({"2", "3"} <= set(ids) or not {"2", "3"} & set(ids) for ids in lists.values()), "one patient"
    assert built.cohort["split_lists_sha256"].keys() == lists.keys()
    again = build(PtbXl(source, splits_from=built.folder), tmp_path / "again", workers=0)
    assert again.cohort["split_rule"]["kind"] == "frozen"
    assert read_id_lists(again.folder) == lists
    audit = json.loads((again.folder / "audit.json").read_text())
    assert audit["reasons"]["dropped"] == {"split_unknown": 1}, "the unlisted record is left out, and counted"
