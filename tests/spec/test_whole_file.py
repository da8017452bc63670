"""A broken write never replaces a good file."""

from __future__ import annotations

from pathlib import Path

import pytest

from ecgclip_jax.spec.whole_file import whole_file


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "new" / "results.json"
    with whole_file(path) as part:
        part.write_text("first")
        assert not path.exists(), "nobody sees half of it"
    assert path.read_text() == "first"
    with pytest.raises(OSError, match="disk"):
        _write_until_the_disk_is_full(path)
    assert path.read_text() == "first"
    with whole_file(path) as part:
        part.write_text("second")
    assert path.read_text() == "second"
    assert [p.name for p in path.parent.iterdir()] == ["results.json"]


def _write_until_the_disk_is_full(path: Path) -> None:
    with whole_file(path) as part:
        part.write_text("seco")
        raise OSError("disk full")
