"""WFDB annotation files (`.atr` and their like) as marks on a recording."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from ecgclip_jax.signal.paths import MAX_HEADER_BYTES, member, read_regular_file, record_folder, unreadable
from tfds_builders.common.records import Annotation

_MAX_BYTES: Final = 64 * MAX_HEADER_BYTES
"""Two bytes a beat: a day has 200 kB of them."""
_RHYTHM_CHANGE: Final = "+"


def read_annotations(path: Path, extension: str, rate_hz: float, *, root: Path, lead: str = "") -> list[Annotation]:
    """The marks of one annotation file, in its order. A change of rhythm is its note, as `(AFIB`.

    Args:
      path: the record, without suffix.
      extension: of the annotation file, without its dot.
      rate_hz: of the record.
      root: folder that the file must lie in.
      lead: the lead that the file is about.

    Raises:
      ECGReadError: `missing_file`, `unreadable` and the others of a file that cannot be read.
    """
    import wfdb  # here, because it pulls in pandas and network clients that most cohorts never need

    folder, name, real_root = record_folder(path, root)
    file = member(folder, f"{name}.{extension}", real_root)
    read_regular_file(file, max_bytes=_MAX_BYTES)
    try:
        marks = wfdb.rdann(os.path.join(folder, name), extension)
        notes = marks.aux_note or [""] * len(marks.symbol)
        return [
            Annotation(_code(symbol, note), int(sample) / rate_hz, lead)
            for symbol, note, sample in zip(marks.symbol, notes, marks.sample, strict=True)
        ]
    except Exception as error:  # whatever a parser throws at hostile bytes is one thing to the caller
        raise unreadable(file, f"wfdb: {type(error).__name__}: {error}") from None


def _code(symbol: str, note: str) -> str:
    note = note.strip("\x00 ")
    return note if symbol == _RHYTHM_CHANGE and note else symbol
