"""A run folder as a thing to use: load the model with its own input description, encode ECGs, encode texts.

The signal specification, the tokenizer and the shared space come from the run itself, so a model can only be fed what
it was trained on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Int16
from transformers import PreTrainedTokenizerBase

from ecgclip_jax.checkpoints import load_params
from ecgclip_jax.models.folding import fold_norms
from ecgclip_jax.parallel.host import batch_sharding, replicated
from ecgclip_jax.parallel.mesh import build_mesh
from ecgclip_jax.signal.operators import SignalOperators, build_operators
from ecgclip_jax.signal.preprocessing import preprocess
from ecgclip_jax.spec.errors import UserError
from ecgclip_jax.spec.experiment import Experiment, MeshSpec
from ecgclip_jax.spec.signal import STORED_LEADS, STORED_SAMPLES
from ecgclip_jax.text.tokenizer import encode_texts, fingerprint, load_tokenizer
from ecgclip_jax.training.resident import free_bytes
from ecgclip_jax.training.run_folder import EXPERIMENT_FILE, TOKENIZER_FOLDER, differences
from ecgclip_jax.training.state import TrainingParts, Tree, build_parts, init_state

TEXTS_AT_A_TIME = 64
ECGS_PER_DEVICE = 512
"""More in a batch keep no accelerator busier, and the host holds some batches as well."""
Encoder = Callable[..., tuple[Array, ...]]
"""Weights, filter operators and rows on the mesh → one or more arrays with a row each."""


class ModelError(UserError):
    """A run folder that holds no usable model; the message says what is wrong and what to do."""


@dataclass(frozen=True, eq=False)
class EcgEmbedding:
    """What the ECG tower says of N ECGs.

    `embedding` lies in the space shared with texts (unit length); `features` is the mean of the trunk over time, which
    probes read.
    """

    embedding: Float[np.ndarray, "records dim"]
    features: Float[np.ndarray, "records width"]


@dataclass(frozen=True, eq=False)
class Model:
    """A trained (or deliberately untrained) dual encoder with everything it needs to be used."""

    experiment: Experiment
    step: int
    access: str
    """Strictest access class of what it was trained on: what is made with it inherits that."""
    tokenizer: PreTrainedTokenizerBase | None
    """None for a model that was trained without text."""
    params: Tree
    batch_stats: Tree
    _parts: TrainingParts = field(repr=False)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (16 hex digits) of all that decides an embedding: weights, input, architecture and tokenizer."""
        digest = hashlib.sha256(fingerprint(self.tokenizer).encode() if self.tokenizer else b"")
        spec = self.experiment
        for part in (spec.signal, spec.view, spec.ecg_encoder, spec.text_encoder, spec.objective):
            digest.update(part.canonical_json().encode() if part else b"")
        for path, leaf in jax.tree_util.tree_leaves_with_path({"params": self.params, "batch_stats": self.batch_stats}):
            digest.update(jax.tree_util.keystr(path).encode())
            digest.update(np.ascontiguousarray(leaf).tobytes())
        return digest.hexdigest()[:16]

    def encode_ecg(
        self,
        ecg_uv: Int16[np.ndarray, "records 5000 12"],
        mains_hz: Float[np.ndarray, "records"] | None = None,
        batch: int = 64,
    ) -> EcgEmbedding:
        """Embeds stored ECGs (`ecgclip_jax.signal.storage`: int16 µV, 500 Hz, 12 leads, -32768 = missing).

        Args:
            ecg_uv: the stored windows.
            mains_hz: mains frequency of each record, NaN where unknown; None = unknown for all.
            batch: ECGs per call; the last one is padded, so that one program is compiled.

        Raises:
            ValueError: arrays of another form; volts or millivolts would otherwise pass as microvolts.
        """
        if ecg_uv.dtype != np.int16 or ecg_uv.shape[1:] != (STORED_SAMPLES, len(STORED_LEADS)):
            raise ValueError(
                f"expected stored ECGs, int16 microvolts [records, {STORED_SAMPLES}, {len(STORED_LEADS)}], found "
                f"{ecg_uv.dtype} {list(ecg_uv.shape)}; ecgclip_jax.signal.storage.to_stored makes them"
            )
        mains = np.full(len(ecg_uv), np.nan) if mains_hz is None else mains_hz
        if mains.shape != ecg_uv.shape[:1]:
            raise ValueError(f"mains_hz: expected one frequency for each of {len(ecg_uv)} ECGs, found {mains.shape}")
        embedding, features = self._in_batches(self._encode_ecg, (ecg_uv, mains.astype(np.float32)), batch)
        return EcgEmbedding(embedding, features)

    def ecg_batch(self, records: int) -> int:
        """ECGs per call that fit the devices: those whose activations take at most half of the memory that is free.

        What one ECG takes is read from the program compiled for eight per device. A device gets a power of two, at most
        `ECGS_PER_DEVICE` and no more than there are `records` for.
        """
        rows = 8 * self._mesh.size
        shapes = (
            jax.ShapeDtypeStruct((rows, STORED_SAMPLES, len(STORED_LEADS)), jnp.int16),
            jax.ShapeDtypeStruct((rows,), jnp.float32),
        )
        placed = (jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=batch_sharding(self._mesh)) for s in shapes)
        jitted: Any = self._encode_ecg
        analysis = jitted.lower(*self._on_mesh, *placed).compile().memory_analysis()
        each = max(analysis.temp_size_in_bytes // 8, 1)
        fitting = min(free_bytes(device) for device in self._mesh.local_devices) // 2 // each
        per_device = max(min(fitting, ECGS_PER_DEVICE, records // self._mesh.size), 1)
        return int(2 ** (per_device.bit_length() - 1)) * self._mesh.size

    def encode_text(self, texts: Sequence[str]) -> Float[np.ndarray, "texts dim"]:
        """Embeds texts into the shared space, unit length, in the order given.

        Raises:
            ModelError: the model was trained without text.
        """
        spec = self.experiment.text_encoder
        if spec is None or self.tokenizer is None:
            raise ModelError(f"a model trained with {self.experiment.objective.kind!r} has no text tower")
        ids, mask = encode_texts(self.tokenizer, texts, spec.tokenizer.max_tokens)
        (embedding,) = self._in_batches(self._encode_text, (ids, mask), TEXTS_AT_A_TIME)
        return embedding

    def _in_batches(self, encode: Encoder, arrays: tuple[np.ndarray, ...], batch: int) -> list[np.ndarray]:
        """Each output of `encode` for all rows of `arrays`; rows that fill up the last batch are cut off again.

        A batch is sent while the devices work on the one before, whose outputs are waited for afterwards.
        """
        n, rows = len(arrays[0]), -(-batch // self._mesh.size) * self._mesh.size
        done: list[list[np.ndarray]] = []
        under_way: list[tuple[Array, ...]] = []
        for start in range(0, max(n, 1), rows):  # no rows at all are one batch of padding: outputs get their widths
            filled = tuple(_padded(array[start : start + rows], rows) for array in arrays)
            under_way.append(encode(*self._on_mesh, *jax.device_put(filled, batch_sharding(self._mesh))))
            if len(under_way) > 1:
                done.append([np.asarray(output) for output in under_way.pop(0)])
        done.append([np.asarray(output)[: n - len(done) * rows] for output in under_way.pop()])
        return [np.concatenate(parts) for parts in zip(*done, strict=True)]

    @cached_property
    def _mesh(self) -> jax.sharding.Mesh:
        return build_mesh(MeshSpec())

    @cached_property
    def _on_mesh(self) -> tuple[Tree, SignalOperators]:
        """What encoders read: in the weights the ECG tower's norms are folded, in `params` they are not."""
        folded = fold_norms(self.params["ecg"], self.batch_stats["ecg"])
        parts = (self.params | {"ecg": folded}, build_operators(self.experiment.signal))
        placed: tuple[Tree, SignalOperators] = jax.device_put(parts, replicated(self._mesh))
        return placed

    @cached_property
    def _encode_ecg(self) -> Encoder:
        return ecg_encoder(self._parts)

    @cached_property
    def _encode_text(self) -> Encoder:
        parts = self._parts

        def encode(
            params: Tree,
            operators: SignalOperators,
            ids: Int[Array, "texts tokens"],
            mask: Bool[Array, "texts tokens"],
        ) -> tuple[Float[Array, "texts dim"]]:
            output = parts.towers.text(params["text"], ids, mask, train=False)
            return (parts.objective.text_embedding(parts.heads, params["objective"], output),)

        encoder: Encoder = jax.jit(encode)
        return encoder


def ecg_encoder(parts: TrainingParts) -> Encoder:
    """The jitted program behind `Model.encode_ecg`, from stored microvolts to embedding and features of each ECG.

    Of the weights it takes those whose ECG tower is folded (`models.folding`).
    """
    spec, view = parts.experiment.signal, parts.experiment.view
    lead = view.inference_lead if view.single_lead else None

    def encode(
        params: Tree,
        operators: SignalOperators,
        ecg_uv: Int16[Array, "batch 5000 12"],
        mains_hz: Float[Array, "batch"],
    ) -> tuple[Float[Array, "batch dim"], Float[Array, "batch width"]]:
        known = jnp.isfinite(mains_hz)
        ecg = preprocess(spec, operators, ecg_uv, {"mains_hz": mains_hz}, {"mains_hz": known}, lead)
        output = parts.towers.folded_ecg(params["ecg"], ecg)
        embedding = parts.objective.ecg_embedding(parts.heads, params["objective"], output)
        return embedding, output.features.astype(jnp.float32)

    encoder: Encoder = jax.jit(encode)
    return encoder


def load_model(run: str | Path, step: int | None = None) -> Model:
    """The model of a run folder, from its newest checkpoint or the one of `step`.

    Raises:
        ModelError: no run folder, or a checkpoint that is not of the folder's experiment or tokenizer.
        CheckpointError: no such checkpoint, or a damaged one.
    """
    folder = Path(run)
    if not (folder / EXPERIMENT_FILE).is_file():
        raise ModelError(f"{folder} is no run folder (no {EXPERIMENT_FILE} in it); expected what `ecgclip train` wrote")
    params, batch_stats, meta = load_params(folder, step)
    experiment = _experiment(folder, meta)
    tokenizer = _tokenizer(folder, meta) if experiment.text_encoder else None
    parts = build_parts(experiment, len(tokenizer) if tokenizer else 0)
    return Model(experiment, int(meta["step"]), str(meta["access"]), tokenizer, params, batch_stats, parts)


def untrained(model: Model, seed: int) -> Model:
    """The same architecture, input and tokenizer before any training: the baseline of every results table.

    All weights are random but those that the experiment takes from files.
    """
    experiment = model.experiment.replace({"seed": seed})
    parts = build_parts(experiment, len(model.tokenizer) if model.tokenizer else 0)
    state = init_state(parts, build_mesh(MeshSpec()))
    params, batch_stats = jax.device_get((state.params, state.batch_stats))
    return Model(experiment, 0, "open", model.tokenizer, params, batch_stats, parts)


def _tokenizer(folder: Path, meta: dict[str, Any]) -> PreTrainedTokenizerBase:
    tokenizer = load_tokenizer(folder / TOKENIZER_FOLDER)
    if fingerprint(tokenizer) != meta["tokenizer_fingerprint"]:
        raise ModelError(
            f"the tokenizer in {folder} is not the one of checkpoint {meta['step']} "
            f"({fingerprint(tokenizer)}, expected {meta['tokenizer_fingerprint']}); restore the folder"
        )
    return tokenizer


def _experiment(folder: Path, meta: dict[str, Any]) -> Experiment:
    """The folder's experiment, whose evaluation may have changed since, if its weights would be the checkpoint's."""
    path = folder / EXPERIMENT_FILE
    try:
        experiment = Experiment.model_validate(json.loads(path.read_text(encoding="utf-8"))["experiment"])
        differing = differences(meta["experiment"], experiment)
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path} or its checkpoint does not describe an experiment of this version") from error
    if differing:
        raise ModelError(
            f"{path} does not describe checkpoint {meta['step']}: {'; '.join(differing[:3])}; restore the file"
        )
    return experiment


def _padded(values: np.ndarray, rows: int) -> np.ndarray:
    """`values` with zero rows appended up to `rows`."""
    missing = rows - len(values)
    return values if missing == 0 else np.concatenate([values, np.zeros((missing, *values.shape[1:]), values.dtype)])
