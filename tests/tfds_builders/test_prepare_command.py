"""`ecgclip prepare`: what it prints, what it refuses, its exit codes."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

import tfds_builders.ptb_xl
from ecgclip_jax.cli.cohort_arguments import World
from ecgclip_jax.cli.main import main
from tfds_builders.synthetic_ecg.cohort import WORLDS

DUMMY = Path(tfds_builders.ptb_xl.__file__).parent / "dummy_data"


def test_prepare_says_what_came_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["prepare", "ptb_xl", "--source", str(DUMMY), "--data-dir", str(tmp_path), "--workers", "0"]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "kept: 3 source records" in printed
    assert "Creative Commons Attribution 4.0" in printed
    assert main(words) == 0
    assert "was there already" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["ptb_xl", "--source", "nowhere"], "not a folder"),
        (["synthetic_ecg", "--size", "1"], "at least 100"),
    ],
)
def test_user_errors_are_one_sentence(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["prepare", *words, "--data-dir", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err


def test_the_command_knows_every_world() -> None:
    assert get_args(World) == tuple(WORLDS)
