"""Where programs are found again: where the user says, and never in the way."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ecgclip_jax.spec.local_cache import cache_folder, keep_programs


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ECGCLIP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_folder_that_cannot_be_written_or_is_not_wanted_keeps_no_programs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a_file").write_text("mine")
    for value in (str(tmp_path / "a_file" / "below"), ""):
        monkeypatch.setenv("ECGCLIP_CACHE", value)
        environment = dict[str, str]()
        keep_programs(environment)
        assert not environment
    assert [path.name for path in tmp_path.iterdir()] == ["a_file"]


def test_where_it_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ECGCLIP_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_folder() == Path("/somewhere/ecgclip")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "ecgclip"


def test_jax_keeps_programs_there_unless_it_was_told_another_folder(folder: Path) -> None:
    told = {"JAX_COMPILATION_CACHE_DIR": "/elsewhere"}
    keep_programs(told)
    assert told == {"JAX_COMPILATION_CACHE_DIR": "/elsewhere"}
    environment = {"PATH": "", "JAX_PLATFORMS": "cpu", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    keep_programs(environment)
    program = "import jax; print(jax.jit(lambda x: x + 1)(1))"
    subprocess.run([sys.executable, "-c", program], env=environment, check=True, capture_output=True)
    assert [path for path in folder.glob("programs-*/*") if "lambda" in path.name]
