"""Two runs compared from stored predictions: numbers of scikit-learn and numpy, and no pair that is not one."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from ecgclip_jax.cli.compare import tables
from ecgclip_jax.cli.main import main
from ecgclip_jax.data.labels import Labels
from ecgclip_jax.evaluation.compare import Comparison, Difference, compare
from ecgclip_jax.evaluation.predictions import save_predictions
from ecgclip_jax.evaluation.scored import Arm, Scored, TestSplit
from ecgclip_jax.evaluation.tasks import EvaluationError
from ecgclip_jax.metrics.multiple_testing import holm

COMMON = {
    "cohort": "a", "version": "1", "split": "internal", "language": "en", "label_source": "", "data_fingerprint": "d",
    "prompts_fingerprint": "", "evaluation_fingerprint": "", "code_version": "", "synthetic": True, "access": "open",
    "availability": "synthetic",
}  # fmt: skip
N = 160
SOURCES = {"x": "report", "y": "report", "z": "independent"}


def split() -> TestSplit:
    rng = np.random.default_rng(0)
    labels = Labels(tuple(SOURCES), rng.random((N, 3)) < 0.3, rng.random((N, 3)) < 0.9)
    return TestSplit(labels, SOURCES, np.arange(N) // 2, COMMON, 5, 2, 60, 0, label_sources=SOURCES)


def scored(strength: float, seed: int, repeat: int = 0, protocol: str = "linear_probe") -> Scored:
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(N, 3)) + strength * split().labels.positive
    return Scored(Arm("pre-trained", "f"), protocol, scores.astype(np.float32), fraction=0.1, repeat=repeat)


GOOD, BAD = [scored(1.5, 1), scored(1.4, 2, 1)], [scored(0.2, 3), scored(0.1, 4, 1), scored(0.1, 5, 2)]


def write(
    run: Path, fits: list[Scored], test: TestSplit, name: str = "a-internal", *, order: np.ndarray | None = None
) -> Path:
    """An evaluation folder whose records stand in some order."""
    order = np.arange(N) if order is None else order
    labels = Labels(test.labels.concepts, test.labels.positive[order], test.labels.known[order])
    moved = replace(test, labels=labels, patient=np.unique(test.patient[order], return_inverse=True)[1])
    table = pa.table({"record_id": [f"r{i}" for i in order]})
    own = [replace(s, scores=s.scores[order]) for s in fits]
    save_predictions(run / "evaluation", name, table, moved, own, identified=test.common["access"] == "open")
    return run / "evaluation"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("runs")
    shuffled = np.random.default_rng(7).permutation(N)
    return write(root / "good", GOOD, split()), write(root / "bad", BAD, split(), order=shuffled)


@pytest.fixture(scope="module")
def found(folders: tuple[Path, Path]) -> Comparison:
    return compare(*folders, ("pre-trained", "pre-trained"), permutations=199)


def one(found: Comparison, **facts: object) -> Difference:
    (row,) = [r for r in found.rows if all(getattr(r, k) == v for k, v in facts.items())]
    return row


def test_values_are_means_of_scikit_learn_over_the_repeats_that_both_have(found: Comparison) -> None:
    labels = split().labels
    for metric, peer in (("auroc", roc_auc_score), ("average_precision", average_precision_score)):
        by_task = {}
        for i, name in enumerate(SOURCES):
            known = labels.known[:, i]
            means = [
                np.mean([peer(labels.positive[known, i], s.scores[known, i]) for s in own[:2]]) for own in (GOOD, BAD)
            ]
            row = one(found, label=name, metric=metric)
            assert (row.first, row.second) == pytest.approx(means, abs=1e-9)
            assert row.ci_low < row.difference < row.ci_high
            by_task[name] = row.difference
        macro = one(found, label="macro", label_source="report", metric=metric)
        assert macro.difference == pytest.approx((by_task["x"] + by_task["y"]) / 2, abs=1e-9)
        assert (macro.n_repeats, macro.n_labels, macro.availability) == (2, 2, "synthetic")
    assert one(found, label="macro", label_source="independent", metric="auroc").excluded.startswith("few_labels")


def test_a_clear_difference_is_found_and_corrected_within_its_family(found: Comparison) -> None:
    assert one(found, label="macro", label_source="report", metric="auroc").p == pytest.approx(1 / 200)
    tasks = [r for r in found.rows if r.metric == "auroc" and r.label != "macro"]
    assert [r.p_holm for r in tasks] == pytest.approx(holm(np.array([r.p for r in tasks])).tolist())
    assert all(math.isnan(r.p) for r in found.rows if "prevalence" in r.metric)


def test_swapping_the_runs_turns_the_sign(folders: tuple[Path, Path], found: Comparison) -> None:
    back = compare(folders[1], folders[0], ("pre-trained", "pre-trained"), permutations=9)
    facts = {"label": "x", "metric": "auroc"}
    assert one(back, **facts).difference == pytest.approx(-one(found, **facts).difference, abs=1e-12)


@pytest.mark.parametrize(
    ("common", "change", "why"),
    [
        ({"version": "2"}, None, "different version: 1 and 2"),
        ({"availability": "real_here"}, None, "different availability of labels: synthetic and real_here"),
        ({"data_fingerprint": "e"}, None, "different fingerprints"),
        ({}, "labels", "same records with different labels"),
        ({}, "records", "different records: 160 and 150"),
    ],
)
def test_what_is_no_pair_is_left_out_with_its_reason(
    tmp_path: Path, folders: tuple[Path, Path], common: dict[str, str], change: str | None, why: str
) -> None:
    test, order = replace(split(), common=COMMON | common), np.arange(N)
    if change == "labels":
        flipped = test.labels.positive.copy()
        flipped[0, 0] ^= True
        test = replace(test, labels=replace(test.labels, positive=flipped))
    if change == "records":
        order = order[:150]
    other = write(tmp_path, GOOD, test, order=order)
    with pytest.raises(EvaluationError, match=why):
        compare(folders[0], other, ("pre-trained", "pre-trained"), permutations=9)


def test_pseudonymous_predictions_pair_with_themselves_only(tmp_path: Path) -> None:
    test = replace(split(), common=COMMON | {"access": "credentialed"}, min_positives=1)
    rare = test.labels.positive.copy()
    rare[:, 0] &= np.cumsum(rare[:, 0]) <= 4
    test = replace(test, labels=replace(test.labels, positive=rare))
    a, b = (write(tmp_path / name, [*GOOD, scored(0, 9, protocol="zero_shot")], test) for name in "ab")
    with pytest.raises(EvaluationError, match="--with-patient-data"):
        compare(a, b, ("pre-trained", "pre-trained"), permutations=9)
    same = compare(a, a, ("pre-trained", "pre-trained"), permutations=9)
    row = one(same, label="x", metric="auroc", protocol="linear_probe")
    assert (row.excluded, row.n_positives) == ("small_cell_suppressed", None)
    assert math.isnan(row.difference)
    assert one(same, label="y", metric="auroc", protocol="linear_probe").difference == 0


def test_the_command_prints_writes_and_names_what_it_left_out(
    tmp_path: Path, folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    write(folders[0].parent, GOOD, split(), name="a-elsewhere")
    words = [str(f.parent) for f in folders] + ["--permutations", "9", "--out", str(tmp_path)]
    assert main(["compare", *words]) == 0
    printed = capsys.readouterr().out
    assert "labels: report (SYNTHETIC)" in printed
    assert "a-elsewhere was not compared: no predictions of it in" in printed
    stored = pq.read_table(tmp_path / "comparison.parquet").to_pylist()
    assert {r["label"] for r in stored} == {"macro", *SOURCES}


def test_tables_never_mix_availabilities(found: Comparison) -> None:
    real = Comparison(tuple(replace(r, availability="real_here") for r in found.rows), {})
    both = replace(found, rows=(*found.rows, *real.rows))
    titles = [str(t.title) for t in tables(both, ["a", "b"], tasks=False)]
    assert len(titles) == 4
    assert sum("SYNTHETIC" in title for title in titles) == 2


def test_a_folder_without_predictions_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="run `ecgclip evaluate` first"):
        compare(tmp_path, tmp_path, ("pre-trained", "pre-trained"))
