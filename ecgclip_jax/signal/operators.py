"""Long linear filters as compressed operators: exact to float32, an order of magnitude cheaper than a dense matrix.

The steps of `ecgclip_jax.signal.filters` on a complete window are one matrix W from 5000 samples to `samples_out`. It
is found by pushing the identity through scipy, so end padding and initial conditions are in it by construction. Cut
into 50 blocks, W is dense only near its diagonal: what reaches farther has to pass through the filters' few states, so
blocks apart have a tiny rank (4 to 20). W is kept as

    y[k] = Σ_{j = k-1 … k+1} near[j, k] x[j]  +  basis_out[k] Σ_j core[j, k] basis_in[j] x[j]

(a uniform block low-rank, or one-level H², matrix): for 0.5-100 Hz with notches, 5000 → 4000, 2.2 M numbers instead of
20 M. It is three matrix products, with no scan over time and no recursion whose float32 errors could grow.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import no_type_check

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jaxtyping import Array, Float, Int
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from ecgclip_jax.signal import filters
from ecgclip_jax.signal.filters import LinearSegment, Step, linear_segments
from ecgclip_jax.signal.kept_arrays import kept_arrays
from ecgclip_jax.spec.signal import STORED_SAMPLES, SignalSpec

N_BLOCKS = 50
TOLERANCE = 1e-6
"""Singular values of far blocks below this are dropped (the filters' gain is 1): well under 1e-4 mV on real ECGs."""

HostOrDevice = Array | np.ndarray
"""Fields of the pytrees below are not checked when built: jax puts shapes and shardings there too."""


@no_type_check
@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class BlockOperator:
    """A linear operator along time, one variant per mains frequency (axis 0), float32.

    `spread` takes an input block to its contributions to the output blocks before, at and after it, and to its states.
    """

    spread: Float[HostOrDevice, "variant block in three_out_and_rank"]
    core: Float[HostOrDevice, "variant block_rank block_rank"]
    basis_out: Float[HostOrDevice, "variant block rank out"]


@no_type_check
@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SignalOperators:
    """The linear operators of a `SignalSpec`: before and after its median baseline; None where nothing is to do."""

    before_baseline: BlockOperator | None
    after_baseline: BlockOperator | None


def build_operators(spec: SignalSpec) -> SignalOperators:
    """Design a spec's filters on the host (scipy, float64), as numpy arrays.

    Takes 1-8 s of one core for a spec with filters, nothing for one without; kept in the process and on disk
    (`kept_arrays`), and shared by specs that differ in nothing that filters see (leads, normalisation, padding).
    """
    notch = spec.notch.model_copy(update={"unknown_mains_hz": None}) if spec.notch else None
    filters_alone = SignalSpec(
        name="filters", samples=1, leads=("I",), rate_hz=spec.rate_hz, bandpass=spec.bandpass, notch=notch,
        baseline=spec.baseline, filter_order=spec.filter_order,
    )  # fmt: skip
    return _build_operators(filters_alone)


@lru_cache(maxsize=16)
def _build_operators(spec: SignalSpec) -> SignalOperators:
    before, after = linear_segments(spec)
    return SignalOperators(
        before_baseline=_kept_segment(before, spec, "before") if before else None,
        after_baseline=_kept_segment(after, spec, "after") if after else None,
    )


def _kept_segment(segment: LinearSegment, spec: SignalSpec, place: str) -> BlockOperator:
    sources = b"".join(Path(file).read_bytes() for file in (__file__, filters.__file__))
    made_from = f"{spec.model_dump_json()} {place} numpy {np.__version__} scipy {scipy.__version__}".encode() + sources
    return BlockOperator(**kept_arrays("filters", made_from, lambda: vars(_build_segment(segment))))


def apply_operator(
    operator: BlockOperator, signal: Float[Array, "batch time lead"], variant: Int[Array, "batch"], samples_out: int
) -> Float[Array, "batch samples lead"]:
    """Filter each record with its own variant.

    A batch of one variant costs one application; in a mixed batch each variant that occurs is applied to all records.
    """
    batch, _, n_leads = signal.shape
    n_variants, n_blocks, block, _ = operator.spread.shape
    blocks = signal.reshape(batch, n_blocks, block, n_leads).transpose(1, 0, 3, 2).reshape(n_blocks, -1, block)

    highest = variant.max()

    def uniform(blocks: Array) -> Array:
        return _apply_variant(operator, highest, blocks)

    def mixed(blocks: Array) -> Array:
        def choose(index: int, filtered: Array) -> Array:
            chosen = variant == index
            rows = jnp.repeat(chosen, n_leads)[None, :, None]
            replace = lambda old: jnp.where(rows, _apply_variant(operator, index, blocks), old)  # noqa: E731
            updated: Array = jax.lax.cond(chosen.any(), replace, lambda old: old, filtered)
            return updated

        filtered = jnp.zeros((*blocks.shape[:2], operator.basis_out.shape[-1]), blocks.dtype)
        for index in range(n_variants):
            filtered = choose(index, filtered)
        return filtered

    if n_variants == 1:
        filtered = _apply_variant(operator, 0, blocks)
    else:
        filtered = jax.lax.cond(variant.min() == highest, uniform, mixed, blocks)
    return (
        filtered.reshape(n_blocks, batch, n_leads, -1)
        .transpose(1, 0, 3, 2)
        .reshape(batch, -1, n_leads)[:, :samples_out]
    )


def _apply_variant(
    operator: BlockOperator, index: int | Int[Array, ""], blocks: Float[Array, "block row in"]
) -> Float[Array, "block row out"]:
    spread, core, basis_out = (jnp.asarray(a)[index] for a in (operator.spread, operator.core, operator.basis_out))
    n_blocks, rank, block_out = basis_out.shape
    exact = jax.lax.Precision.HIGHEST
    contributions = jnp.einsum("kmi,kin->kmn", blocks, spread, precision=exact)
    earlier, own, later, states = jnp.split(contributions, [block_out, 2 * block_out, 3 * block_out], axis=2)
    passed = jnp.einsum("jmr,jrs->ms", states, core.reshape(n_blocks, rank, -1), precision=exact)
    far = jnp.einsum("mkr,kro->kmo", passed.reshape(-1, n_blocks, rank), basis_out, precision=exact)
    return own + far + jnp.pad(earlier[1:], ((0, 1), (0, 0), (0, 0))) + jnp.pad(later[:-1], ((1, 0), (0, 0), (0, 0)))


def _build_segment(segment: LinearSegment) -> BlockOperator:
    with threadpool_limits(1, user_api="blas"):  # many small matrices: threads would only wait for each other
        compressed = [_compress(dense) for dense in _dense_variants(segment)]
    rank = max(basis_out.shape[1] for *_, basis_out in compressed)
    widened = (_widen(*parts, rank=rank) for parts in compressed)
    spread, core, basis_out = (np.stack(parts) for parts in zip(*widened, strict=True))
    return BlockOperator(spread, core, basis_out)


def _dense_variants(segment: LinearSegment) -> list[np.ndarray]:
    """Each variant as a float64 matrix [5000, samples_out]: what each unit impulse becomes."""
    dense = [np.empty((STORED_SAMPLES, segment.samples_out)) for _ in segment.variants]
    rows = 1000  # Gustafsson's method solves a least-squares problem per call: few calls
    for start in range(0, STORED_SAMPLES, rows):
        impulses = _through(segment.common, np.eye(rows, STORED_SAMPLES, k=start))
        for matrix, steps in zip(dense, segment.variants, strict=True):
            for piece in range(0, rows, 50):  # these stay in the processor's cache
                matrix[start + piece : start + piece + 50] = _through(steps, impulses[piece : piece + 50])
    return dense


def _through(steps: tuple[Step, ...], signal: np.ndarray) -> np.ndarray:
    for step in steps:
        signal = step(signal)
    return signal


def _compress(dense: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Split a matrix [5000, samples_out] into (near, basis_in, core, basis_out), far blocks at their numerical rank."""
    samples_in, samples_out = dense.shape
    block, block_out = samples_in // N_BLOCKS, -(-samples_out // N_BLOCKS)
    padded = np.pad(dense, ((0, 0), (0, N_BLOCKS * block_out - samples_out)))
    far = padded.reshape(N_BLOCKS, block, N_BLOCKS, block_out)
    near = np.zeros((N_BLOCKS, block, 3, block_out))
    for j in range(N_BLOCKS):
        for k in range(max(0, j - 1), min(N_BLOCKS, j + 2)):
            near[j, :, k - j + 1] = far[j, :, k]
            far[j, :, k] = 0
    from_input = far.reshape(N_BLOCKS, block, -1)
    to_output = far.transpose(2, 3, 0, 1).reshape(N_BLOCKS, block_out, -1)
    values_in, vectors_in = np.linalg.eigh(from_input @ from_input.swapaxes(1, 2))
    values_out, vectors_out = np.linalg.eigh(to_output @ to_output.swapaxes(1, 2))
    rank = max(1, *((values > TOLERANCE**2).sum(axis=1).max() for values in (values_in, values_out)))
    basis_in, basis_out = vectors_in[:, :, -rank:], vectors_out[:, :, -rank:]
    states = (basis_in.swapaxes(1, 2) @ from_input).reshape(N_BLOCKS * rank, N_BLOCKS, block_out)
    core = (states.swapaxes(0, 1) @ basis_out).reshape(N_BLOCKS, N_BLOCKS, rank, rank).transpose(1, 2, 0, 3)
    return near.reshape(N_BLOCKS, block, 3 * block_out), basis_in, core, basis_out.swapaxes(1, 2)


def _widen(
    near: np.ndarray, basis_in: np.ndarray, core: np.ndarray, basis_out: np.ndarray, rank: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One variant as the arrays of a `BlockOperator`, zero states added up to the common rank."""
    more = (0, rank - basis_out.shape[1])
    spread = np.concatenate([near, np.pad(basis_in, ((0, 0), (0, 0), more))], axis=2)
    core = np.pad(core, ((0, 0), more, (0, 0), more)).reshape(N_BLOCKS * rank, N_BLOCKS * rank)
    basis_out = np.pad(basis_out, ((0, 0), more, (0, 0)))
    return spread.astype(np.float32), core.astype(np.float32), basis_out.astype(np.float32)
