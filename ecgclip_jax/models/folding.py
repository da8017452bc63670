"""BatchNorm's running statistics folded into the convolutions before them, for a tower that is only read from.

A norm that no longer moves is x ↦ x·f + (β − μ·f) with f = γ/√(σ² + ε). The factor goes into the kernel, whose output
channels it scales, and the offset stays behind as the norm's only parameter: one pass over each map less. The result is
the same function up to rounding. Checkpoints and training never see it.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from ecgclip_jax.models.batch_norm import BATCH_NORM_EPSILON
from ecgclip_jax.models.functional import Tree


def fold_norms(params: Tree, stats: Tree) -> Tree:
    """Parameters of the folded tower (`ResNet1D(folded=True)`) from a tower's own and its running statistics.

    Computed in float64 on the host and rounded once, to float32.
    """
    folded = {name: fold_norms(part, stats.get(name, {})) for name, part in params.items() if isinstance(part, dict)}
    folded |= {name: part for name, part in params.items() if name not in folded}
    for name in stats:
        if "mean" in stats[name]:
            before = _convolution_before(name)
            kernel, folded[name] = _folded(params[before]["kernel"], params[name], stats[name])
            folded[before] = folded[before] | {"kernel": kernel}
    return folded


def _convolution_before(norm: str) -> str:
    """`norm2` → `conv2`, `shortcut_norm` → `shortcut_conv`, `stem_norm` → `stem`."""
    return "stem" if norm == "stem_norm" else norm.replace("norm", "conv")


def _folded(
    kernel: Float[np.ndarray, "tap width_in width"], norm: Tree, stats: Tree
) -> tuple[Float[np.ndarray, "tap width_in width"], Tree]:
    kernel, scale, bias, mean, var = (
        np.asarray(leaf, np.float64) for leaf in (kernel, norm["scale"], norm["bias"], stats["mean"], stats["var"])
    )
    factor = scale / np.sqrt(var + BATCH_NORM_EPSILON)
    return (kernel * factor).astype(np.float32), {"bias": (bias - mean * factor).astype(np.float32)}
