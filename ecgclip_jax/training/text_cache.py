"""What a frozen text tower says of each distinct text, computed once and read by row number in every step after.

A step that runs a frozen BERT on 256 tokens spends most of its time on answers that never change. Here they are a
matrix in the row order of the run's table of texts, in a file that is mapped, not read. Its folder is named by all
that the numbers depend on, so that a cache of another tokenizer, of other weights or texts is never taken for this one;
it is made in chunks, and a run that is stopped meanwhile goes on with the next chunk.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import jax
import ml_dtypes
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool, Int, Shaped

from ecgclip_jax.contracts import TextRows, TextVectors
from ecgclip_jax.data.batch import TokenTable, tokenize_texts
from ecgclip_jax.parallel.agreement import exchange, together
from ecgclip_jax.parallel.host import batch_sharding, process_rows, replicated, to_global
from ecgclip_jax.spec.errors import UserError
from ecgclip_jax.spec.experiment import Experiment
from ecgclip_jax.spec.whole_file import whole_file
from ecgclip_jax.text.tokenizer import fingerprint
from ecgclip_jax.tracking import counting
from ecgclip_jax.training.run_folder import RunFolder
from ecgclip_jax.training.state import TrainingParts, Tree

logger = logging.getLogger(__name__)

CACHE_FOLDER = "text_cache"
_FACTS_FILE, _VECTORS_FILE = "facts.json", "vectors.npy"
_TOKENS_PER_DEVICE = 8192
_BATCHES_PER_CHUNK = 16
_LENGTHS = (16, 32, 64, 128, 256, 512)
"""Texts of like length are embedded together, padded to one of these: so many programs, and little padding."""
_FORMAT = 1


class TextCacheError(UserError):
    """A text cache that cannot be written or is not what its name says; the message says what to do."""


@dataclass(frozen=True, eq=False)
class TextCache:
    """The text tower's pooled outputs, a row for each distinct text of a run."""

    path: Path
    vectors: Shaped[np.ndarray, "texts hidden"]
    """Mapped from its file, float32 or bfloat16."""

    def take(self, rows: TextRows) -> TextVectors:
        """Outputs of the texts of a batch on the host, float32."""
        pooled = self.vectors[np.asarray(rows.index)].astype(np.float32)
        return TextVectors(cast("Any", pooled))


def open_text_cache(
    parts: TrainingParts, mesh: Mesh, folder: RunFolder, texts: Sequence[str], params: Tree
) -> TextCache:
    """The cache of a run's distinct texts; what is missing of it is computed first. All processes call it alike.

    Args:
        texts: in the order of the rows that batches carry.
        params: the text tower's, wherever on the mesh they lie.

    Raises:
        TextCacheError: a folder that cannot be written, is not shared by all processes, or holds another cache under
            this one's name.
    """
    facts = _facts(parts.experiment, folder, texts, params, mesh)
    root = _root(parts.experiment, folder)
    path = root / hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
    dtype = np.dtype(np.float32) if facts["dtype"] == "float32" else np.dtype(ml_dtypes.bfloat16)
    done = exchange(together(lambda: _done(path, facts)))[0]
    if done < len(texts):
        if done == 0:
            _say_why(root, facts)
        assert folder.tokenizer is not None
        tokens = tokenize_texts(folder.tokenizer, texts, facts["max_tokens"])
        _fill(parts, mesh, path, facts, tokens, params, done, dtype)
    return together(lambda: _open(path, facts, dtype))


def _facts(experiment: Experiment, folder: RunFolder, texts: Sequence[str], params: Tree, mesh: Mesh) -> dict[str, Any]:
    """All that decides a cache's numbers, and the access class of the texts."""
    spec = experiment.text_encoder
    assert spec is not None
    assert folder.tokenizer is not None
    architecture = spec.model_dump(mode="json", exclude={"tokenizer", "weights", "dropout"})
    return {
        "format": _FORMAT,
        "tokenizer": fingerprint(folder.tokenizer),
        "max_tokens": spec.tokenizer.max_tokens,
        "architecture": hashlib.sha256(json.dumps(architecture, sort_keys=True).encode()).hexdigest()[:16],
        "weights": _weights_hash(params, mesh),
        "texts": hashlib.sha256("\x00".join(texts).encode()).hexdigest()[:16],
        "rows": len(texts),
        "width": spec.hidden,
        "dtype": experiment.memory.text_cache_dtype,
        "access": folder.facts["access"],
    }


def _weights_hash(params: Tree, mesh: Mesh) -> str:
    """SHA-256 (16 hex digits) of all leaves with their paths; one leaf at a time, for they may be spread over hosts."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(np.ascontiguousarray(jax.device_put(leaf, replicated(mesh))).tobytes())
    return digest.hexdigest()[:16]


def _root(experiment: Experiment, folder: RunFolder) -> Path:
    """Above access class `open` the run folder holds no cache: vectors of single reports would travel with it."""
    if experiment.memory.text_cache_folder is not None:
        return Path(experiment.memory.text_cache_folder)
    own = folder.path if folder.facts["access"] == "open" else folder.index.cohorts[0].data_dir
    return own / CACHE_FOLDER


def _done(path: Path, facts: dict[str, Any]) -> int:
    """How many texts, from the shortest on, a cache holds already; 0 for one that is not there or not whole."""
    known, vectors = path / _FACTS_FILE, path / _VECTORS_FILE
    try:
        saved = json.loads(known.read_text(encoding="utf-8"))
        there = saved.pop("done")
        shape = np.load(vectors, mmap_mode="r").shape
    except (OSError, ValueError, KeyError):
        return 0
    if saved != facts or shape != (facts["rows"], facts["width"]):
        raise TextCacheError(
            f"{path} is not the cache that its name says ({_differing(saved, facts) or f'its shape is {shape}'}); "
            "it was moved or altered: remove it, and it is made again"
        )
    return int(there)


def _say_why(root: Path, facts: dict[str, Any]) -> None:
    """Which caches lie there that could not be used, and what differs."""
    if jax.process_index() != 0:
        return
    for other in sorted(root.glob(f"*/{_FACTS_FILE}")):
        try:
            saved = json.loads(other.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        differing = _differing(saved, facts)
        logger.warning("texts are embedded anew: the cache %s was made with %s", other.parent, differing)


def _differing(saved: dict[str, Any], facts: dict[str, Any]) -> str:
    return ", ".join(f"other {k} ({saved.get(k)}, here {v})" for k, v in facts.items() if saved.get(k) != v)


def _fill(
    parts: TrainingParts,
    mesh: Mesh,
    path: Path,
    facts: dict[str, Any],
    tokens: TokenTable,
    params: Tree,
    done: int,
    dtype: np.dtype[Any],
) -> None:
    """Embeds the texts from number `done` of the order of length on; every chunk is on the disk before the next."""
    writes = jax.process_index() == 0
    rows_sharding = batch_sharding(mesh)

    def pooled(params: Tree, ids: Int[jax.Array, "texts tokens"], mask: Bool[jax.Array, "texts tokens"]) -> jax.Array:
        return parts.towers.text(params, ids, mask, train=False).pooled

    placed = jax.tree.map(lambda leaf: leaf.sharding, params)
    embed = jax.jit(pooled, in_shardings=(placed, rows_sharding, rows_sharding), out_shardings=replicated(mesh))
    vectors = together(lambda: _writable(path, facts, dtype, done) if writes else None)
    with counting("embedding texts", len(tokens.ids), "texts", done) as advance:
        for number, (rows, size, length) in enumerate(_batches(tokens.mask, mesh.size, done), 1):
            local = process_rows(mesh, size)
            filled = np.resize(rows, size)[local.start : local.stop]
            ids, mask = tokens.ids[filled, :length].astype(np.int32), tokens.mask[filled, :length]
            with jax.set_mesh(mesh):
                found = np.asarray(embed(params, *to_global((ids, mask), mesh)))
            done += len(rows)
            if vectors is not None:
                vectors[rows] = found[: len(rows)].astype(dtype).view(vectors.dtype)
            if number % _BATCHES_PER_CHUNK == 0 or done == len(tokens.ids):
                together(partial(_note, path, facts, vectors, done))
            advance(len(rows))


def _batches(
    mask: Bool[np.ndarray, "texts tokens"], n_devices: int, done: int
) -> Iterator[tuple[Int[np.ndarray, " rows"], int, int]]:
    """(rows of the table, texts in the batch, tokens of each), from short texts to long ones; the first `done` are."""
    lengths = mask.sum(axis=1)
    order = np.argsort(lengths, kind="stable")[done:]
    longest = mask.shape[1]
    shapes = [min(length, longest) for length in _LENGTHS if length < 2 * longest]
    begin = 0
    for shape in dict.fromkeys([*shapes, longest]):
        end = int(np.searchsorted(lengths[order], shape, side="right"))
        per_device = min(max(_TOKENS_PER_DEVICE // shape, 1), -(-(end - begin) // n_devices))
        size = per_device * n_devices
        for start in range(begin, end, max(size, 1)):
            yield order[start : min(start + size, end)], size, shape
        begin = max(begin, end)


def _writable(path: Path, facts: dict[str, Any], dtype: np.dtype[Any], done: int) -> np.memmap[Any, Any]:
    """The file of vectors, new or gone on with; bfloat16 as its bits, which numpy's format has no name for."""
    stored = np.dtype(np.uint16) if dtype.itemsize == 2 else dtype
    try:
        path.mkdir(parents=True, exist_ok=True)
        if done:
            return np.lib.format.open_memmap(path / _VECTORS_FILE, mode="r+")
        shape = (facts["rows"], facts["width"])
        return np.lib.format.open_memmap(path / _VECTORS_FILE, mode="w+", dtype=stored, shape=shape)
    except OSError as error:
        raise _unwritable(path, error) from error


def _note(path: Path, facts: dict[str, Any], vectors: np.memmap[Any, Any] | None, done: int) -> None:
    """Puts on the disk what process 0 has, and says how much it is; the others have nothing to write."""
    if vectors is None:
        return
    try:
        vectors.flush()
        with whole_file(path / _FACTS_FILE) as part:
            part.write_text(json.dumps(facts | {"done": done}, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> TextCacheError:
    return TextCacheError(
        f"the text cache {path} cannot be written ({error.strerror or error}); free some space, name another "
        "folder with --memory.text-cache-folder, or go without: --memory.text-cache off"
    )


def _open(path: Path, facts: dict[str, Any], dtype: np.dtype[Any]) -> TextCache:
    if _done(path, facts) < facts["rows"]:
        raise TextCacheError(
            f"process {jax.process_index()} does not see the text cache {path} that process 0 wrote; all hosts need "
            "the same folder: name one with --memory.text-cache-folder"
        )
    return TextCache(path, np.load(path / _VECTORS_FILE, mmap_mode="r").view(dtype))
