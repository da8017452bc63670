"""A build in pieces: array jobs and a merge, or a Beam runner; what is missing or miscounted is refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest

import tfds_builders.ptb_xl
from tfds_builders.common.beam import build_with_beam
from tfds_builders.common.build import build
from tfds_builders.common.cluster import ShardRange, merge, write_range
from tfds_builders.common.cohort import BuildError, Shard
from tfds_builders.ptb_xl.cohort import PtbXl

COHORT = PtbXl(Path(tfds_builders.ptb_xl.__file__).parent / "dummy_data")


@pytest.fixture(scope="module")
def at_once(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return _bytes(build(COHORT, tmp_path_factory.mktemp("at_once"), workers=0).folder)


def _bytes(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _write(data_dir: Path, text: str) -> Any:
    return write_range(COHORT, data_dir, ShardRange.parse(text), workers=0)


def test_jobs_and_a_merge_give_the_same_bytes(at_once: dict[str, bytes], tmp_path: Path) -> None:
    first = _write(tmp_path, "1:3/3")
    assert (first.written, first.found, first.left) == (2, 0, 1)
    with pytest.raises(BuildError, match="--shards 0:1/3"):
        merge(COHORT, tmp_path)
    assert _write(tmp_path, "0/3").left == 0
    again = _write(tmp_path, "0:3/3")
    assert (again.written, again.found) == (0, 3)
    merged = merge(COHORT, tmp_path)
    assert _bytes(merged.folder) == at_once
    assert merge(COHORT, tmp_path).existed
    assert _write(tmp_path, "0/3").left == 0, "a late job finds the dataset"
    assert [p.name for p in merged.folder.parent.iterdir() if p.is_dir()] == ["1.0.3"]


def test_jobs_of_another_build_are_refused(tmp_path: Path) -> None:
    _write(tmp_path, "0/3")
    other = PtbXl(COHORT.source, report_cleaning="merl")
    with pytest.raises(BuildError, match="another source"):
        write_range(other, tmp_path, ShardRange(0, 1, 1), workers=0)
    assert _write(tmp_path, "0/3").found == 1


def test_files_are_counted(tmp_path: Path) -> None:
    _write(tmp_path, "0:1/1")
    parts = tmp_path / "ptb_xl" / "1.0.3.incomplete" / "parts"
    audit = parts / "test-00000.audit.parquet"
    pq.write_table(pq.read_table(audit).slice(1), audit)
    with pytest.raises(BuildError, match="shard test 0: expected 1 audited source records"):
        merge(COHORT, tmp_path)


@pytest.mark.parametrize("text", ["", "3", "0:1", "3/3", "2:1/4", "0:5/4", "-1/4", "a/b", "1:2/0"])
def test_ranges_are_checked(text: str) -> None:
    with pytest.raises(BuildError, match="--shards"):
        ShardRange.parse(text)


@pytest.mark.parametrize("n_shards", [1, 5, 64, 100])
def test_pieces_cover_every_shard_once(n_shards: int) -> None:
    shards = [Shard("train", i, 1, None) for i in range(n_shards)]
    chosen = [shard for piece in range(7) for shard in ShardRange.parse(f"{piece}/7").choose(shards)]
    assert chosen == shards
    assert ShardRange.parse("2:5/7").choose(shards) == [
        s for p in (2, 3, 4) for s in ShardRange(p, p + 1, 7).choose(shards)
    ]


class _FakeBeam:
    """As much of Beam as the pipeline uses; `lose` drops elements without a word, as its local runner did."""

    def __init__(self, lose: Callable[[Shard], bool] = lambda _: False) -> None:
        self.arguments: list[str] = []
        self.options = SimpleNamespace(pipeline_options=SimpleNamespace(PipelineOptions=self._options))
        self.lose = lose

    DoFn = object

    def _options(self, arguments: list[str]) -> list[str]:
        self.arguments = arguments
        return arguments

    def Create(self, elements: list[Shard]) -> Callable[[Any], Any]:
        return lambda _: [e for e in elements if not self.lose(e)]

    def ParDo(self, function: Any) -> Callable[[Any], Any]:
        return lambda elements: [out for element in elements for out in function.process(element)]

    def Pipeline(self, options: Any) -> _FakePipeline:
        return _FakePipeline([])


class _FakePipeline(list):  # type: ignore[type-arg]
    def __enter__(self) -> _FakePipeline:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __or__(self, step: Callable[[Any], Any]) -> Any:
        return _FakePipeline(step(self))


def test_beam_gives_the_same_bytes(at_once: dict[str, bytes], tmp_path: Path) -> None:
    beam = _FakeBeam()
    built = build_with_beam(COHORT, tmp_path, ["--runner=Fake"], beam=beam)
    assert beam.arguments == ["--runner=Fake"]
    assert _bytes(built.folder) == at_once
    assert json.loads((built.folder / "audit.json").read_text())["source_rows"] == 3


def test_a_shard_that_beam_lost_is_missed(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="1 of 3 shards are not written"):
        build_with_beam(COHORT, tmp_path, [], beam=_FakeBeam(lose=lambda shard: shard.split == "validation"))
    assert not (tmp_path / "ptb_xl" / "1.0.3").exists()
    assert build_with_beam(COHORT, tmp_path, [], beam=_FakeBeam()).cohort["source_rows"] == 3, "it goes on"


def test_without_beam_the_way_out_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with pytest.raises(BuildError, match=r"ecgclip_jax\[beam\]"):
        build_with_beam(COHORT, tmp_path, [])
