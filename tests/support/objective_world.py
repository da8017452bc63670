"""Towers simple enough to follow by hand, and a batch with everything that any objective reads."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ecgclip_jax.contracts import Batch, EcgInput, EcgOutput, Embeddings, TextOutput, TextTokens
from ecgclip_jax.models.heads import Head
from ecgclip_jax.models.tag_attention import TagAttention
from ecgclip_jax.objectives.build import build_objective
from ecgclip_jax.objectives.interfaces import Objective, TagAttentionNeed

ROWS, WIDTH, K, STEPS, LABELS = 8, 8, 3, 5, 2


class LinearTowers:
    """Pooled: a linear map of the first lead. Tokens: leads at each time step. Statistics: a running mean."""

    ecg_width = feature_width = text_width = WIDTH

    def ecg(self, params: Any, stats: Any, ecg_input: EcgInput, *, train: bool, keys: Any = None) -> Any:
        pooled = ecg_input.signal[:, :, 0] @ params["kernel"]
        moved = {"mean": 0.9 * stats["mean"] + 0.1 * pooled.mean()}
        return EcgOutput(pooled=pooled, features=pooled, tokens=ecg_input.signal[:, :, :WIDTH]), moved

    def text(self, params: Any, ids: Any, mask: Any, *, train: bool, keys: Any = None) -> TextOutput:
        return TextOutput(pooled=params["table"][ids[:, 0]])


@dataclass(frozen=True, eq=False)
class World:
    """An objective with its heads, its parameters, and its momentum branch; each program is compiled once."""

    objective: Objective
    heads: dict[str, Any]
    params: dict[str, Any]
    target: dict[str, Any]

    def embed(
        self, views: tuple[EcgInput, ...], batch: Batch, *, params: Any = None, target: Any = "own"
    ) -> tuple[Embeddings, Any]:
        """Embeddings and running statistics, of these parameters or others."""
        stats = {"ecg": {"mean": jnp.zeros(())}, "target": {"ecg": {"mean": jnp.ones(())}}}
        return self.objective.embed(
            LinearTowers(),
            self.heads,
            self.params if params is None else params,
            stats,
            views,
            batch,
            train=True,
            keys=jax.random.split(jax.random.key(3), ROWS),
            target=self.target if target == "own" else target,
        )

    def loss(self, views: tuple[EcgInput, ...], batch: Batch) -> tuple[Any, Any]:
        """Embeddings and loss in one program."""
        return self._programs["loss"](self.params, self.target, views, batch)

    def gradient(self, views: tuple[EcgInput, ...], batch: Batch) -> tuple[Any, Any]:
        """Of the loss, by the parameters and by those of the momentum branch."""
        return self._programs["gradient"](self.params, self.target, views, batch)

    def loss_of(self, batch: Batch, **embeddings: np.ndarray) -> tuple[Any, Any]:
        """The loss of given embeddings."""
        arrays = {name: jnp.asarray(values, jnp.float32) for name, values in embeddings.items()}
        return self._programs["loss_of"](arrays, self.params["objective"], batch)

    @cached_property
    def _programs(self) -> dict[str, Any]:
        def loss(params: Any, target: Any, views: tuple[EcgInput, ...], batch: Batch) -> tuple[Any, Any]:
            embeddings, _ = self.embed(views, batch, params=params, target=target)
            return self.objective.loss(embeddings, params["objective"], batch, ())

        return {
            "loss": jax.jit(loss),
            "gradient": jax.jit(jax.grad(lambda *given: loss(*given)[0], (0, 1))),
            "loss_of": jax.jit(lambda *given: self.objective.loss(*given, ())),
        }


@cache
def make_world(spec: Any) -> World:
    """An objective that is made once for all tests."""
    objective, towers = build_objective(spec), LinearTowers()
    heads = {
        name: (TagAttention if isinstance(need, TagAttentionNeed) else Head)(**need._asdict())
        for name, need in objective.heads(towers).items()
    }
    rng = np.random.default_rng(0)
    params = {
        "ecg": {"kernel": jnp.asarray(rng.normal(size=(STEPS, WIDTH)), jnp.float32)},
        "text": {"table": jnp.asarray(rng.normal(size=(20, WIDTH)), jnp.float32)},
        "objective": jax.jit(lambda key: objective.init(key, heads))(jax.random.key(1)),
    }
    slow = jax.tree.map(lambda x: jnp.asarray(x + 0.1 * rng.normal(size=x.shape), x.dtype), params)
    target = {"ecg": slow["ecg"], "objective": {name: slow["objective"][name] for name in objective.target_heads}}
    return World(objective, heads, params, target)


def make_views(number: int, seed: int = 0) -> tuple[EcgInput, ...]:
    rng = np.random.default_rng(seed)
    present, valid = jnp.ones((ROWS, 12), bool), jnp.ones((ROWS, STEPS), bool)
    shape = (ROWS, STEPS, 12)
    return tuple(EcgInput(jnp.asarray(rng.normal(size=shape), jnp.float32), present, valid) for _ in range(number))


def make_batch(**extras: Any) -> Batch:
    """`extras` replace values; a tuple `(values, present)` replaces what is known, too; None takes one out."""
    rng = np.random.default_rng(4)
    values: dict[str, Any] = {
        "risk": rng.uniform(0, 0.3, ROWS),
        "risk_completeness": rng.choice([0.25, 0.5, 1.0], ROWS),
        "labels": rng.random((ROWS, LABELS)) < 0.5,
        "measurements": rng.normal(size=(ROWS, 1)),
        "follow_up_years": rng.uniform(0, 6, ROWS),
        "event": rng.random(ROWS) < 0.5,
    }
    known = {name: np.ones(np.shape(value), bool) for name, value in values.items()}
    for name, change in extras.items():
        if change is None:
            del values[name], known[name]
        elif isinstance(change, tuple):
            values[name], known[name] = change
        else:
            values[name] = change
    ids = jnp.asarray(rng.integers(0, 20, (ROWS, K, 4)), jnp.int32)
    return Batch(
        ecg_uv=np.zeros((ROWS, 10, 12), np.int16),
        record_row=jnp.arange(ROWS, dtype=jnp.int32),
        patient_group=jnp.arange(ROWS, dtype=jnp.int32),
        text_group=ids[:, :, 0],
        texts=TextTokens(ids=ids, mask=jnp.ones(ids.shape, bool)),
        text_valid=jnp.ones((ROWS, K), bool),
        extras={name: jnp.asarray(value, jnp.float32) for name, value in values.items()},
        extras_present={name: jnp.asarray(value) for name, value in known.items()},
    )


def unit_rows(rows: int, seed: int) -> np.ndarray:
    """Random unit vectors in float64."""
    x = np.random.default_rng(seed).normal(size=(rows, WIDTH))
    return x / np.linalg.norm(x, axis=1, keepdims=True)
