"""Arrays and filters found again: never stale, never half-written, never in the way."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from ecgclip_jax.signal import operators
from ecgclip_jax.signal.kept_arrays import kept_arrays
from ecgclip_jax.spec.signal import Bandpass, SignalSpec


class Maker:
    """Counts how often it made its arrays."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self) -> dict[str, np.ndarray]:
        self.made += 1
        return {"near": np.arange(6.0).reshape(2, 3), "far": np.ones(1, np.float32)}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ECGCLIP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_arrays_are_made_once_for_each_thing_they_are_made_from(folder: Path) -> None:
    make = Maker()
    first, second = kept_arrays("filters", b"a", make), kept_arrays("filters", b"a", make)
    assert make.made == 1
    assert {name: (a.dtype, a.tolist()) for name, a in second.items()} == {
        name: (a.dtype, a.tolist()) for name, a in first.items()
    }
    kept_arrays("filters", b"b", make)
    assert make.made == 2
    assert len(list(folder.rglob("*"))) == 3, "the folder of this kind, two files, nothing unfinished"


@pytest.mark.parametrize("damage", ["cut short", "empty", "other bytes", "objects"])
def test_what_cannot_be_read_is_made_anew(folder: Path, damage: str) -> None:
    make = Maker()
    kept_arrays("filters", b"a", make)
    (path,) = folder.rglob("*.npz")
    whole = path.read_bytes()
    if damage == "objects":
        np.savez(path, near=np.array([{"pickled": 1}], dtype=object))
    else:
        path.write_bytes({"cut short": whole[:-40], "empty": b"", "other bytes": b"\x00" * 99}[damage])
    assert kept_arrays("filters", b"a", make)["near"].shape == (2, 3)
    assert make.made == 2
    assert path.read_bytes() == whole


def test_a_folder_that_cannot_be_written_or_is_not_wanted_keeps_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a_file").write_text("mine")
    for value in (str(tmp_path / "a_file" / "below"), ""):
        monkeypatch.setenv("ECGCLIP_CACHE", value)
        make = Maker()
        for _ in range(2):
            assert kept_arrays("filters", b"a", make)["far"].tolist() == [1]
        assert make.made == 2
    assert [path.name for path in tmp_path.iterdir()] == ["a_file"]


def test_filters_are_those_that_were_designed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = SignalSpec(
        name="short", samples=500, leads=("I",), rate_hz=50.0, bandpass=Bandpass(order=1, low_hz=1.0, high_hz=20.0)
    )
    designed = operators._build_operators.__wrapped__(spec).before_baseline
    monkeypatch.setattr(operators, "_build_segment", None)
    found = operators._build_operators.__wrapped__(spec).before_baseline
    for field in dataclasses.fields(designed):
        np.testing.assert_array_equal(getattr(found, field.name), getattr(designed, field.name), strict=True)
    monkeypatch.setattr(np, "__version__", "another")
    with pytest.raises(TypeError, match="NoneType"):
        operators._build_operators.__wrapped__(spec)
