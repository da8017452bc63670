"""A whole cohort through a run's model, into files that other tools read: `ecgclip embed`.

Arrays are written where they will stay, chunk by chunk; what is done is noted after each, so that the same command goes
on where it was stopped. The facts beside them say of which model and which records they are.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ecgclip_jax.data.sources import AccessClass, CohortSplit, strictest_access
from ecgclip_jax.evaluation.embedding import CHUNK, Model, encode, read_ahead
from ecgclip_jax.spec.errors import UserError
from ecgclip_jax.spec.pseudonyms import make_key, pseudonym
from ecgclip_jax.spec.whole_file import whole_file
from ecgclip_jax.tracking import counting

FACTS_FILE, RECORDS_FILE = "facts.json", "records.parquet"
_OUTPUTS = ("embedding", "features")


class EmbedError(UserError):
    """Embeddings that cannot be written there or may not be written at all; the message says what to do."""


@dataclass(frozen=True)
class Embedded:
    """What was written."""

    folder: Path
    records: int
    computed: int
    """Of the records, those that this call embedded; the others were done before."""
    seconds: float

    @property
    def ecg_per_s(self) -> float:
        """ECGs per second of this call, reading and writing included."""
        return self.computed / max(self.seconds, 1e-9)


def embed_cohort(
    model: Model, split: CohortSplit, folder: Path, *, batch: int, with_patient_data: bool = False
) -> Embedded:
    """Embeds every record of a split into `folder`, or what is missing there.

    Writes `embedding.npy` [records, dim] and `features.npy` [records, width] (float32, in the split's order),
    `records.parquet` (record, window and patient of each row; pseudonyms above access class `open`) and `facts.json`.

    Raises:
        EmbedError: above `open` without `with_patient_data`; a folder that holds other embeddings, or cannot be
            written. CohortError: records that cannot be read.
    """
    access = strictest_access([_access(model.access), split.access])
    if access != "open" and not with_patient_data:
        raise EmbedError(
            f"{split.name} under this model is {access}: embeddings of single records are patient data; "
            "--with-patient-data writes them (with pseudonyms for ids) into a folder that must not leave this place"
        )
    identity = {"model": model.fingerprint, "split": split.name, "split_fingerprint": split.fingerprint}
    facts = identity | {"records": len(split), "access": access, "licence": split.licence}
    try:
        done, before_s = _begun(folder, facts), time.monotonic()
        if not (folder / RECORDS_FILE).is_file():
            folder.mkdir(parents=True, exist_ok=True)
            pq.write_table(_records(split, keyed=access != "open"), folder / RECORDS_FILE)
        _embed(model, split, folder, facts, done, batch)
    except OSError as error:
        raise EmbedError(
            f"{folder} cannot be written ({error.strerror or error}); free some space or choose another --out, and "
            "the same command goes on"
        ) from error
    return Embedded(folder, len(split), len(split) - done, time.monotonic() - before_s)


def _embed(model: Model, split: CohortSplit, folder: Path, facts: dict[str, Any], done: int, batch: int) -> None:
    """Chunks from record `done` on; a chunk is as large as it must be for whole batches, of which one is sent ahead."""
    size, began_s, first = -(-max(batch, CHUNK // 4) // batch) * batch, time.monotonic(), done
    rows = np.arange(done, len(split))
    files: dict[str, np.memmap[Any, Any]] = {}
    with counting(f"embedding {split.name}", len(split), "ECG", done) as advance:
        for table, ecg_uv in read_ahead(split, rows, size):
            found = vars(encode(model, ecg_uv, table, batch))
            if not files:
                files = {name: _file(folder / f"{name}.npy", len(split), found[name].shape[1]) for name in _OUTPUTS}
            for name, file in files.items():
                file[done : done + len(ecg_uv)] = found[name]
            done += len(ecg_uv)
            if (done - first) % CHUNK < size or done == len(split):
                for file in files.values():
                    file.flush()
                rate = (done - first) / (time.monotonic() - began_s)
                _write(folder / FACTS_FILE, facts | {"done": done, "batch": batch, "ecg_per_s": round(rate, 1)})
            advance(len(ecg_uv))


def _begun(folder: Path, facts: dict[str, Any]) -> int:
    """How many records are done there already.

    Raises:
        EmbedError: the folder holds something else.
    """
    path = folder / FACTS_FILE
    if not path.is_file():
        if folder.is_dir() and any(p.suffix != ".npy" and p.name != RECORDS_FILE for p in folder.iterdir()):
            raise EmbedError(f"{folder} is neither empty nor holds embeddings; choose another --out")
        return 0
    saved = json.loads(path.read_text(encoding="utf-8"))
    differing = [f"{k} {saved.get(k)!r} there, {v!r} here" for k, v in facts.items() if saved.get(k) != v]
    if differing:
        raise EmbedError(f"{folder} holds other embeddings ({'; '.join(differing)}); choose another --out")
    there = all((folder / f"{name}.npy").is_file() for name in _OUTPUTS)
    return int(saved["done"]) if there else 0


def _file(path: Path, records: int, width: int) -> np.memmap[Any, Any]:
    if path.is_file():
        there = np.lib.format.open_memmap(path, mode="r+")
        if there.shape == (records, width):
            return there
    return np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(records, width))


def _records(split: CohortSplit, *, keyed: bool) -> pa.Table:
    columns = {name: split.table.column(name).to_pylist() for name in ("record_id", "window_index", "patient_id")}
    known = split.table.column("patient_id_known").to_pylist()
    columns["patient_id"] = [p if k else None for p, k in zip(columns["patient_id"], known, strict=True)]
    if keyed:
        key = make_key(split.data_dir)
        for name, kind in (("record_id", "record"), ("patient_id", "patient")):
            columns[name] = [None if v is None else pseudonym(key, split.cohort, kind, v) for v in columns[name]]
    return pa.table(columns)


def _access(word: str) -> AccessClass:
    return strictest_access([word])  # type: ignore[list-item]


def _write(path: Path, content: dict[str, Any]) -> None:
    with whole_file(path) as part:
        part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
