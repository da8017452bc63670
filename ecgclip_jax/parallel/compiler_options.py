"""Options of the compilers, as named sets per platform: what a program needs, and what a run may choose.

They travel with the program (`jax.jit(compiler_options=…)`): no environment variable has to be right on every host, and
a compile for devices that are not here takes the same ones. A name that a compiler does not know ends in its own error
at the first step. Sources: https://docs.jax.dev/en/latest/gpu_performance_tips.html; libtpu's own list of flags.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import jax

from ecgclip_jax.spec.experiment import CompilerSet

Options = Mapping[str, bool | int]

NEEDED: Final[Mapping[str, Options]] = {"TPU v6 lite": {"xla_tpu_dot_dot_fusion": False}}
"""By kind of device, in every set. libtpu 0.0.42 fuses chains of convolutions for v6e until estimating their cost
overflows its stack and ends the process (seen with ECGCLIP's step at depths 18 and 34)."""

CHOSEN: Final[Mapping[CompilerSet, Mapping[str, Options]]] = {
    "default": {},
    "overlap": {
        "gpu": {
            "xla_gpu_enable_latency_hiding_scheduler": True,
            "xla_gpu_all_reduce_combine_threshold_bytes": 2**25,
        },
        "tpu": {
            "xla_enable_async_all_gather": True,
            "xla_tpu_overlap_compute_collective_tc": True,
        },
    },
    "library_products": {"gpu": {"xla_gpu_enable_triton_gemm": False}},
}
"""By platform. `default`: the compiler's own choices, which every figure of ours is of. `overlap`: collectives run
while the device computes, at the price of longer-lived buffers; for several devices whose interconnect shows in
`ecgclip profile`. Whether it pays has not been measured: no accelerator was at hand. `library_products`: matrix
products by cuBLAS alone. XLA's own for GPUs fuse with what follows them, but not every shape can be tiled: ViT-small's
100 tokens end in an error (jax 0.10.2, compiled for a GPU that is not there, so without trying other tiles)."""


def compiler_options(device: jax.Device, chosen: CompilerSet) -> dict[str, bool | int]:
    """What a program for such a device is compiled with; empty on CPUs, whose compiler has nothing to overlap."""
    return options_of(device.platform, device.device_kind, chosen)


def options_of(platform: str, kind: str, chosen: CompilerSet) -> dict[str, bool | int]:
    """`compiler_options` of a device that calls itself so."""
    return {**NEEDED.get(kind, {}), **CHOSEN[chosen].get(platform, {})}
