"""Frozen embeddings of a split, computed once for all models and kept beside the results.

A split is read once, whatever the number of models. What is kept carries a key of everything it depends on and is used
again only under that key. Above `open` access nothing per record is written unless the caller asks for patient data.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int, Int16

from ecgclip_jax.data.sources import CohortSplit
from ecgclip_jax.evaluation.trivial import TRIVIAL_FEATURES, trivial_features
from ecgclip_jax.spec.experiment import Experiment
from ecgclip_jax.spec.whole_file import whole_file

READ_AT_A_TIME = 256
BATCH_ON_CPU = 64
CHUNK = 4096
"""ECGs after which a pass that is stopped need not begin again."""
_OUTPUTS = ("embedding", "features")
_FORMAT = 1


def encoder_batch() -> int:
    """ECGs per call of an encoder: fixed for a platform, so that no figure depends on how much memory was free."""
    return BATCH_ON_CPU if jax.default_backend() == "cpu" else READ_AT_A_TIME


@runtime_checkable
class Embedded(Protocol):
    """What an encoder returns for a batch of ECGs."""

    @property
    def embedding(self) -> Any:
        """`[N, D]`, unit length: the shared space."""

    @property
    def features(self) -> Any:
        """`[N, W]`: what a probe reads."""


@runtime_checkable
class Model(Protocol):
    """The part of `ecgclip_jax.inference.Model` that an evaluation needs."""

    @property
    def experiment(self) -> Experiment:
        """What the model was trained as."""

    @property
    def fingerprint(self) -> str:
        """Of weights and input specification."""

    @property
    def access(self) -> str:
        """Strictest access class of what it was trained on."""

    def encode_ecg(
        self, ecg_uv: Int16[np.ndarray, "records time lead"], mains_hz: Float[np.ndarray, "records"] | None, batch: int
    ) -> Embedded:
        """Embeddings and features of stored ECGs; unknown mains frequencies are NaN."""

    def encode_text(self, texts: list[str]) -> Any:
        """Unit embeddings `[N, D]`."""


@dataclass(frozen=True)
class EcgArrays:
    """Frozen outputs of one model for the chosen rows of a split."""

    embedding: Float[np.ndarray, "records dim"]
    features: Float[np.ndarray, "records width"]


@dataclass(frozen=True)
class Store:
    """The folder of kept arrays; without a folder nothing is kept."""

    folder: Path | None

    def get(
        self, name: str, key: str, names: Sequence[str], compute: Callable[[], dict[str, np.ndarray]]
    ) -> dict[str, np.ndarray]:
        """Arrays kept under `name` if their key is `key`, otherwise computed and kept."""
        found = self.read(name, key, names)
        return self.keep(name, key, compute()) if found is None else found

    def read(self, name: str, key: str, names: Sequence[str]) -> dict[str, np.ndarray] | None:
        """The kept arrays, or None if there are none under this key (or the file is damaged)."""
        if self.folder is None or not (self.folder / f"{name}.npz").is_file():
            return None
        try:
            with np.load(self.folder / f"{name}.npz") as kept:
                return {n: kept[n] for n in names} if str(kept["key"]) == key else None
        except (OSError, ValueError, KeyError):
            return None

    def keep(self, name: str, key: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Write arrays under their key; a broken write never replaces a good file."""
        if self.folder is not None:
            with whole_file(self.folder / f"{name}.npz") as part, part.open("wb") as file:
                np.savez(file, **(arrays | {"key": np.array(key)}))  # type: ignore[arg-type]
        return arrays

    def forget_chunks(self, names: Iterable[str]) -> None:
        """Removes the chunks that became whole arrays."""
        for name in names:
            for chunk in [] if self.folder is None else self.folder.glob(f"{name}.chunk*.npz"):
                chunk.unlink()


def array_key(*parts: object) -> str:
    """SHA-256 (16 hex digits) of what kept arrays depend on."""
    return hashlib.sha256(json.dumps([_FORMAT, *map(str, parts)]).encode()).hexdigest()[:16]


def split_name(split: CohortSplit) -> str:
    """Cohort, version and split as a file name."""
    return f"{split.cohort}-{split.version}-{split.split}"


def array_name(kind: str, model: str, split: CohortSplit) -> str:
    """File name, less `.npz`, of a model's kept arrays for a split; `kind` is `ecg` or `text`."""
    return f"{kind}-{model.replace(' ', '_')}-{split_name(split)}"


def embed_split(
    split: CohortSplit,
    rows: Int[np.ndarray, "records"],
    models: dict[str, Model],
    store: Store,
    advance: Callable[[int], None],
) -> tuple[dict[str, EcgArrays], Float[np.ndarray, "records features"]]:
    """Every model's embeddings and the trivial features of some rows, in their order, in one pass over the waveforms.

    `advance` is told how many records are done (progress).
    """
    row_hash = hashlib.sha256(rows.astype("<i8").tobytes()).hexdigest()
    keys = {n: array_key("ecg", m.fingerprint, split.fingerprint, row_hash) for n, m in models.items()}
    names = {n: array_name("ecg", n, split) for n in models}
    kept = {n: store.read(names[n], keys[n], ("embedding", "features")) for n in models}
    trivial_name, trivial_key = (
        f"trivial-{split_name(split)}",
        array_key(*TRIVIAL_FEATURES, split.fingerprint, row_hash),
    )
    trivial = store.read(trivial_name, trivial_key, ("features",))
    missing = [n for n in models if kept[n] is None]
    if missing or trivial is None:
        wanted = {names[n]: (keys[n], _OUTPUTS) for n in missing} | {trivial_name: (trivial_key, ("features",))}
        chosen = {names[n]: models[n] for n in missing}
        done = _in_chunks(split, rows, wanted, chosen, trivial_name, store, advance)
        trivial = store.keep(trivial_name, trivial_key, done[trivial_name])
        for name in missing:
            kept[name] = store.keep(names[name], keys[name], done[names[name]])
        store.forget_chunks(wanted)
    else:
        advance(len(rows))
    return {n: EcgArrays(**arrays) for n, arrays in kept.items() if arrays is not None}, trivial["features"]


def _in_chunks(
    split: CohortSplit,
    rows: Int[np.ndarray, "records"],
    wanted: Mapping[str, tuple[str, tuple[str, ...]]],
    models: Mapping[str, Model],
    trivial_name: str,
    store: Store,
    advance: Callable[[int], None],
) -> dict[str, dict[str, np.ndarray]]:
    """Arrays of each of `wanted` (name → key, arrays), in one pass; a chunk that an earlier pass kept is not read."""
    joined: dict[str, list[dict[str, np.ndarray]]] = {name: [] for name in wanted}
    for number, start in enumerate(range(0, len(rows), CHUNK)):
        chunk = rows[start : start + CHUNK]
        before = {n: store.read(_chunk(n, number), key, arrays) for n, (key, arrays) in wanted.items()}
        found = {name: arrays for name, arrays in before.items() if arrays is not None}
        if len(found) < len(wanted):
            parts: dict[str, list[dict[str, np.ndarray]]] = {name: [] for name in wanted}
            for facts, ecg_uv in read_ahead(split, chunk, READ_AT_A_TIME):
                for name, model in models.items():
                    parts[name].append(vars(encode(model, ecg_uv, facts, encoder_batch())))
                age, sex = _floats(facts, "age_years"), facts.column("sex").to_pylist()
                parts[trivial_name].append({"features": trivial_features(ecg_uv, age, sex)})
                advance(len(ecg_uv))
            found = {name: _joined(arrays) for name, arrays in parts.items()}
            if len(rows) > CHUNK:
                for name, arrays in found.items():
                    store.keep(_chunk(name, number), wanted[name][0], arrays)
        else:
            advance(len(chunk))
        for name, arrays in found.items():
            joined[name].append(arrays)
    return {name: _joined(parts) for name, parts in joined.items()}


def _joined(parts: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _chunk(name: str, number: int) -> str:
    return f"{name}.chunk{number:05d}"


def read_ahead(
    split: CohortSplit, rows: Int[np.ndarray, "records"], size: int
) -> Generator[tuple[pa.Table, Int16[np.ndarray, "records time lead"]], None, None]:
    """Facts and waveforms of `size` rows at a time; the next ones are read while the consumer works on the last."""

    def read(start: int) -> tuple[pa.Table, Int16[np.ndarray, "records time lead"]]:
        chunk = rows[start : start + size]
        return split.table.take(pa.array(chunk)), split.read_ecg(chunk.tolist())

    with ThreadPoolExecutor(1) as reader:
        ahead = reader.submit(read, 0) if len(rows) else None
        for start in range(size, len(rows) + size, size):
            assert ahead is not None
            here = ahead.result()
            if start < len(rows):
                ahead = reader.submit(read, start)
            yield here


def encode(model: Model, ecg_uv: Int16[np.ndarray, "records time lead"], facts: pa.Table, batch: int) -> EcgArrays:
    """Outputs of a model for some records of a split."""
    encoded = model.encode_ecg(ecg_uv, _floats(facts, "mains_hz"), batch)
    return EcgArrays(np.asarray(encoded.embedding, np.float32), np.asarray(encoded.features, np.float32))


def _floats(table: pa.Table, column: str) -> Float[np.ndarray, "records"]:
    return np.array([np.nan if v is None else v for v in table.column(column).to_pylist()], np.float32)


def embed_texts(model: Model, name: str, texts: Sequence[str], store: Store) -> Float[np.ndarray, "texts dim"]:
    """Unit embeddings of distinct texts."""
    key = array_key("text", model.fingerprint, *texts)
    arrays = store.get(name, key, ("embedding",), lambda: {"embedding": np.asarray(model.encode_text(list(texts)))})
    return arrays["embedding"].astype(np.float32)
