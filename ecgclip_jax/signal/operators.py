"""Long linear filters as compressed operators: exact to float32, an order of magnitude cheaper than a dense matrix.

The steps of `ecgclip_jax.signal.filters` on a complete window are one matrix W from 5000 samples to `samples_out`. It
is found by pushing the identity through scipy, so end padding and initial conditions are in it by construction. Cut
into blocks, W is dense only near its diagonal: what reaches farther has to pass through the filters' few states, so
blocks apart have a tiny rank (4 to 20). W is kept as

    y[k] = near[k] x[k-1 : k+2]  +  basis_out[k] Σ_j core[k, j] basis_in[j] x[j]

(a uniform block low-rank, or one-level H², matrix). 0.5-100 Hz with notches, 5000 → 4000: 2.2 M numbers instead of
20 M, four matrix products, no scan over time, and no recursion whose float32 errors could grow.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ecgclip_jax.signal.filters import LinearSegment, Step, linear_segments
from ecgclip_jax.spec.signal import STORED_SAMPLES, SignalSpec

N_BLOCKS = 50
TOLERANCE = 1e-6
"""Singular values of far blocks below this are dropped (the filters' gain is 1): under 1e-4 mV on real ECGs."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class BlockOperator:
    """A linear operator along time, one variant per mains frequency (axis 0), float32."""

    near: Float[Array | np.ndarray, "variant block three_in out"]
    basis_in: Float[Array | np.ndarray, "variant block in rank"]
    core: Float[Array | np.ndarray, "variant block_rank block_rank"]
    basis_out: Float[Array | np.ndarray, "variant block rank out"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SignalOperators:
    """The linear operators of a `SignalSpec`: before and after its median baseline; None where nothing is to do."""

    before_baseline: BlockOperator | None
    after_baseline: BlockOperator | None


@lru_cache(maxsize=16)
def build_operators(spec: SignalSpec) -> SignalOperators:
    """Design a spec's filters on the host (scipy, float64) as numpy arrays; cached per process, so free to call again.

    Takes 1-10 s for a spec with filters, nothing for one without.
    """
    before, after = linear_segments(spec)
    return SignalOperators(
        before_baseline=_build_segment(before) if before else None,
        after_baseline=_build_segment(after) if after else None,
    )


def apply_operator(
    operator: BlockOperator, signal: Float[Array, "batch time lead"], variant: Int[Array, "batch"], samples_out: int
) -> Float[Array, "batch samples lead"]:
    """Filter each record with its own variant; a variant that no record of the batch asks for costs nothing."""
    n_variants = operator.near.shape[0]
    if n_variants == 1:
        return _apply_variant(operator, 0, signal, samples_out)
    filtered = jnp.zeros((signal.shape[0], samples_out, signal.shape[2]), signal.dtype)
    for index in range(n_variants):
        chosen = variant == index

        def replace(filtered: Array, index: int = index, chosen: Array = chosen) -> Array:
            return jnp.where(chosen[:, None, None], _apply_variant(operator, index, signal, samples_out), filtered)

        filtered = jax.lax.cond(chosen.any(), replace, lambda unchanged: unchanged, filtered)
    return filtered


def _apply_variant(
    operator: BlockOperator, index: int, signal: Float[Array, "batch time lead"], samples_out: int
) -> Float[Array, "batch samples lead"]:
    near, basis_in, core, basis_out = (
        a[index] for a in (operator.near, operator.basis_in, operator.core, operator.basis_out)
    )
    n_blocks, block, rank = basis_in.shape
    batch, _, n_leads = signal.shape
    exact = jax.lax.Precision.HIGHEST
    blocks = signal.reshape(batch, n_blocks, block, n_leads)
    edged = jnp.pad(blocks, ((0, 0), (1, 1), (0, 0), (0, 0)))
    neighbourhood = jnp.concatenate([edged[:, :-2], edged[:, 1:-1], edged[:, 2:]], axis=2)
    states = jnp.einsum("bkil,kir->bkrl", blocks, basis_in, precision=exact)
    passed = jnp.einsum("bsl,st->btl", states.reshape(batch, n_blocks * rank, n_leads), core, precision=exact)
    far = jnp.einsum("bkrl,kro->bkol", passed.reshape(batch, n_blocks, rank, n_leads), basis_out, precision=exact)
    filtered = jnp.einsum("bkil,kio->bkol", neighbourhood, near, precision=exact) + far
    return filtered.reshape(batch, -1, n_leads)[:, :samples_out]


def _build_segment(segment: LinearSegment) -> BlockOperator:
    compressed = [_compress(_dense(steps, segment.samples_out)) for steps in segment.variants]
    rank = max(basis_in.shape[-1] for _, basis_in, _, _ in compressed)
    return BlockOperator(*(np.stack(parts) for parts in zip(*(_widen(c, rank) for c in compressed), strict=True)))


def _dense(steps: tuple[Step, ...], samples_out: int) -> np.ndarray:
    """The operator as a float64 matrix [5000, samples_out]: what each unit impulse becomes."""
    dense = np.empty((STORED_SAMPLES, samples_out))
    rows = 100
    for start in range(0, STORED_SAMPLES, rows):  # in pieces that stay in the processor's cache
        impulses = np.eye(rows, STORED_SAMPLES, k=start)
        for step in steps:
            impulses = step(impulses)
        dense[start : start + rows] = impulses
    return dense


Compressed = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def _compress(dense: np.ndarray) -> Compressed:
    """Split a matrix [5000, samples_out] into near blocks and a far field of low rank; all variants of one segment."""
    samples_in, samples_out = dense.shape
    block, block_out = samples_in // N_BLOCKS, -(-samples_out // N_BLOCKS)
    padded = np.pad(dense, ((0, 0), (0, N_BLOCKS * block_out - samples_out)))
    far = padded.reshape(N_BLOCKS, block, N_BLOCKS, block_out)
    near = np.zeros((N_BLOCKS, 3, block, block_out), np.float32)
    for k in range(N_BLOCKS):
        for j in range(max(0, k - 1), min(N_BLOCKS, k + 2)):
            near[k, j - k + 1] = far[j, :, k]
            far[j, :, k] = 0
    rows = np.einsum("kiol,kjol->kij", far, far, optimize=True)
    columns = np.einsum("jiko,jikp->kop", far, far, optimize=True)
    values_in, vectors_in = np.linalg.eigh(rows)
    values_out, vectors_out = np.linalg.eigh(columns)
    rank = max(1, *((values > TOLERANCE**2).sum(axis=1).max() for values in (values_in, values_out)))
    basis_in = vectors_in[:, :, -rank:]
    basis_out = vectors_out[:, :, -rank:].swapaxes(1, 2)
    core = np.einsum("kir,kijo,jso->krjs", basis_in, far, basis_out, optimize=True)
    core = core.reshape(N_BLOCKS * rank, N_BLOCKS * rank)
    return near.reshape(N_BLOCKS, 3 * block, block_out), basis_in, core, basis_out


def _widen(compressed: Compressed, rank: int) -> Compressed:
    """Pad a variant with zero states to the common rank, so that variants stack."""
    near, basis_in, core, basis_out = compressed
    own = basis_in.shape[-1]
    more = (0, rank - own)
    core = np.pad(core.reshape(N_BLOCKS, own, N_BLOCKS, own), ((0, 0), more, (0, 0), more))
    return (
        near.astype(np.float32),
        np.pad(basis_in, ((0, 0), (0, 0), more)).astype(np.float32),
        core.reshape(N_BLOCKS * rank, N_BLOCKS * rank).astype(np.float32),
        np.pad(basis_out, ((0, 0), more, (0, 0))).astype(np.float32),
    )
