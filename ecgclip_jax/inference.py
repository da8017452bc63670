"""A run folder as a thing to use: load the model with its own input description, encode ECGs, encode texts.

The signal specification, the tokenizer and the shared space come from the run itself, so a model can only be fed what
it was trained on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
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
from ecgclip_jax.parallel.host import batch_sharding, replicated
from ecgclip_jax.parallel.mesh import build_mesh
from ecgclip_jax.signal.operators import SignalOperators, build_operators
from ecgclip_jax.signal.preprocessing import preprocess
from ecgclip_jax.spec.errors import UserError
from ecgclip_jax.spec.experiment import Experiment, MeshSpec
from ecgclip_jax.text.tokenizer import encode_texts, fingerprint, load_tokenizer
from ecgclip_jax.training.run_folder import EXPERIMENT_FILE, TOKENIZER_FOLDER
from ecgclip_jax.training.state import TrainingParts, Tree, build_parts, init_state

TEXTS_AT_A_TIME = 64


class ModelError(UserError):
    """A run folder that holds no usable model; the message says what is wrong and what to do."""


@dataclass(frozen=True)
class EcgEmbedding:
    """What the ECG tower says of N ECGs.

    `embedding` lies in the space shared with texts (unit length); `features` is the mean of the trunk over time, which
    probes read.
    """

    embedding: Float[np.ndarray, "records dim"]
    features: Float[np.ndarray, "records width"]


@dataclass(frozen=True)
class Model:
    """A trained (or deliberately untrained) dual encoder with everything it needs to be used."""

    experiment: Experiment
    step: int
    access: str
    """Strictest access class of what it was trained on: what is made with it inherits that."""
    tokenizer: PreTrainedTokenizerBase
    params: Tree
    batch_stats: Tree
    _parts: TrainingParts = field(repr=False)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (16 hex digits) of the weights, the input description and the tokenizer."""
        digest = hashlib.sha256(self.experiment.signal.canonical_json().encode())
        digest.update(fingerprint(self.tokenizer).encode())
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
        """
        n = len(ecg_uv)
        rows = -(-batch // self._mesh.size) * self._mesh.size
        mains = np.full(n, np.nan, np.float32) if mains_hz is None else mains_hz.astype(np.float32)
        pooled: list[np.ndarray] = []
        features: list[np.ndarray] = []
        for start in range(0, n, rows):
            part = slice(start, start + rows)
            padded_uv, padded_mains = _padded(ecg_uv[part], rows), _padded(mains[part], rows)
            embedding, trunk = self._encode_ecg(*self._on_mesh, *jax.device_put((padded_uv, padded_mains), self._rows))
            pooled.append(np.asarray(embedding)[: n - start])
            features.append(np.asarray(trunk)[: n - start])
        if not pooled:
            return EcgEmbedding(
                np.zeros((0, self.experiment.objective.embedding_dim), np.float32),
                np.zeros((0, self._parts.towers.feature_width), np.float32),
            )
        return EcgEmbedding(np.concatenate(pooled), np.concatenate(features))

    def encode_text(self, texts: Sequence[str]) -> Float[np.ndarray, "texts dim"]:
        """Embeds texts into the shared space, unit length, in the order given."""
        max_tokens = self.experiment.text_encoder.tokenizer.max_tokens
        ids, mask = encode_texts(self.tokenizer, texts, max_tokens)
        done = []
        for start in range(0, len(ids), TEXTS_AT_A_TIME):
            part = slice(start, start + TEXTS_AT_A_TIME)
            padded = _padded(ids[part], TEXTS_AT_A_TIME), _padded(mask[part], TEXTS_AT_A_TIME)
            done.append(np.asarray(self._encode_text(self._on_mesh[0], *padded))[: len(ids) - start])
        return np.concatenate(done) if done else np.zeros((0, self.experiment.objective.embedding_dim), np.float32)

    @cached_property
    def _mesh(self) -> jax.sharding.Mesh:
        return build_mesh(MeshSpec())

    @cached_property
    def _rows(self) -> jax.sharding.NamedSharding:
        return batch_sharding(self._mesh)

    @cached_property
    def _on_mesh(self) -> tuple[Tree, Tree, SignalOperators]:
        parts = (self.params, self.batch_stats, build_operators(self.experiment.signal))
        placed: tuple[Tree, Tree, SignalOperators] = jax.device_put(parts, replicated(self._mesh))
        return placed

    @cached_property
    def _encode_ecg(self) -> Any:
        parts, spec = self._parts, self.experiment.signal

        def encode(
            params: Tree,
            stats: Tree,
            operators: SignalOperators,
            ecg_uv: Int16[Array, "batch 5000 12"],
            mains_hz: Float[Array, "batch"],
        ) -> tuple[Float[Array, "batch dim"], Float[Array, "batch width"]]:
            known = jnp.isfinite(mains_hz)
            ecg = preprocess(spec, operators, ecg_uv, {"mains_hz": mains_hz}, {"mains_hz": known})
            output, _ = parts.towers.ecg(params["ecg"], stats["ecg"], ecg, train=False)
            embedding = parts.objective.ecg_embedding(parts.heads, params["objective"], output)
            return embedding, output.features.astype(jnp.float32)

        return jax.jit(encode)

    @cached_property
    def _encode_text(self) -> Any:
        parts = self._parts

        def encode(
            params: Tree, ids: Int[Array, "texts tokens"], mask: Bool[Array, "texts tokens"]
        ) -> Float[Array, "texts dim"]:
            output = parts.towers.text(params["text"], ids, mask, train=False)
            return parts.objective.text_embedding(parts.heads, params["objective"], output)

        return jax.jit(encode)


def load_model(run: str | Path, step: int | None = None) -> Model:
    """The model of a run folder, from its newest checkpoint or the one of `step`.

    Raises:
        ModelError: no run folder, or a checkpoint that was trained with another tokenizer than the folder's.
        CheckpointError: no such checkpoint, or a damaged one.
    """
    folder = Path(run)
    if not (folder / EXPERIMENT_FILE).is_file():
        raise ModelError(f"{folder} is no run folder (no {EXPERIMENT_FILE} in it); expected what `ecgclip train` wrote")
    params, batch_stats, meta = load_params(folder, step)
    experiment = Experiment.model_validate(meta["experiment"])
    tokenizer = load_tokenizer(folder / TOKENIZER_FOLDER)
    if fingerprint(tokenizer) != meta["tokenizer_fingerprint"]:
        raise ModelError(
            f"the tokenizer in {folder} is not the one of checkpoint {meta['step']} "
            f"({fingerprint(tokenizer)}, expected {meta['tokenizer_fingerprint']}); restore the folder"
        )
    parts = build_parts(experiment, len(tokenizer))
    return Model(experiment, int(meta["step"]), str(meta["access"]), tokenizer, params, batch_stats, parts)


def untrained(model: Model, seed: int) -> Model:
    """The same architecture, input and tokenizer with random weights: the baseline of every results table."""
    experiment = model.experiment.replace({"seed": seed})
    parts = build_parts(experiment, len(model.tokenizer))
    state = init_state(parts, build_mesh(MeshSpec()))
    params, batch_stats = jax.device_get((state.params, state.batch_stats))
    return Model(experiment, 0, "open", model.tokenizer, params, batch_stats, parts)


def _padded(values: np.ndarray, rows: int) -> np.ndarray:
    """`values` with zero rows appended up to `rows`."""
    missing = rows - len(values)
    return values if missing == 0 else np.concatenate([values, np.zeros((missing, *values.shape[1:]), values.dtype)])
