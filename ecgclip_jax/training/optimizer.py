"""AdamW with a schedule, where path rules decide what decays and what stays frozen.

Update rule and schedules are PyTorch's: `torch.optim.AdamW`, `CosineAnnealingLR`, `CosineAnnealingWarmRestarts`, the
schedule stepped once per update. Frozen parameters get no optimizer memory.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from ecgclip_jax.parallel.rules import RuleError, leaf_paths, match_rules
from ecgclip_jax.spec.experiment import OptimizerSpec

Schedule = Callable[[Int[Array, ""]], Float[Array, ""]]

DECAY_RULES: tuple[tuple[str, bool], ...] = (
    (r"(^|/)(kernel|embedding)$", True),
    (r"(^|/)(bias|scale|(lead_)?positions|query_token|log_scale|logit_bias)$", False),
)
"""What weight decay pulls on unless `optimizer.decay_all`: matrices and embeddings. A new name needs a decision."""


def learning_rate(spec: OptimizerSpec, total_steps: int) -> Schedule:
    """Learning rate of update number `count` (from 0), float32.

    Warm-up climbs linearly and reaches `peak_lr` at its last step, so that no update is spent at zero; the schedule
    begins after it. `cosine` would reach `end_lr` one update after the last.
    """
    span = total_steps - spec.warmup_steps if spec.schedule == "cosine" else spec.restart_steps

    def at(count: Int[Array, ""]) -> Float[Array, ""]:
        after = jnp.maximum(count - spec.warmup_steps, 0)
        if spec.schedule == "constant":
            level = jnp.asarray(spec.peak_lr, jnp.float32)
        else:
            phase = jnp.minimum(after, span) if spec.schedule == "cosine" else after % span
            wave = (1 + jnp.cos(math.pi * phase.astype(jnp.float32) / span)) / 2
            level = spec.end_lr + (spec.peak_lr - spec.end_lr) * wave
        if spec.warmup_steps == 0:
            return level
        climb = spec.peak_lr * (count + 1).astype(jnp.float32) / spec.warmup_steps
        return jnp.where(count < spec.warmup_steps, climb, level)

    return at


def frozen_mask(spec: OptimizerSpec, params: Any) -> Any:
    """A tree of booleans: which parameters stay as they are.

    Raises:
        RuleError: an expression of `optimizer.frozen` that matches no parameter, or nothing left to train.
    """
    if not spec.frozen:
        return _all(params, False)
    if all(any(re.search(pattern, path) for pattern in spec.frozen) for path in leaf_paths(params)):
        raise RuleError(f"optimizer.frozen {spec.frozen} covers every parameter: nothing is left to train")
    return match_rules([*((pattern, True) for pattern in spec.frozen), (".*", False)], params, what="optimizer.frozen")


def build_optimizer(spec: OptimizerSpec, total_steps: int, params: Any) -> optax.GradientTransformation:
    """The optimizer for a tree of parameters (shapes suffice).

    `clip_norm` bounds the norm of all gradients together.

    Raises:
        RuleError: rules that do not cover the parameters or match none of them.
    """
    frozen = frozen_mask(spec, params)
    decayed = _all(params, True) if spec.decay_all else match_rules(DECAY_RULES, params, what="weight decay rules")
    labels = jax.tree.map(lambda f, d: "frozen" if f else "decayed" if d else "plain", frozen, decayed)
    parts = {
        "decayed": _adamw(spec, total_steps, spec.weight_decay),
        "plain": _adamw(spec, total_steps, 0.0),
        "frozen": optax.set_to_zero(),
    }
    used = set(jax.tree.leaves(labels))
    update = optax.partition({name: part for name, part in parts.items() if name in used}, labels)
    return update if spec.clip_norm is None else optax.chain(optax.clip_by_global_norm(spec.clip_norm), update)


def _adamw(spec: OptimizerSpec, total_steps: int, weight_decay: float) -> optax.GradientTransformation:
    return optax.adamw(
        learning_rate(spec, total_steps), b1=spec.beta1, b2=spec.beta2, eps=spec.epsilon, weight_decay=weight_decay
    )


def _all(tree: Any, value: bool) -> Any:
    return jax.tree.map(lambda _: value, tree)
