"""Options of a compiler reach the programs of its own devices, and of no other."""

from __future__ import annotations

import jax
import pytest

from ecgclip_jax.parallel.compiler_options import CHOSEN, compiler_options, options_of
from ecgclip_jax.parallel.targets import compiler_installed, describe, parse_target


def test_options_are_not_given_to_another_compiler() -> None:
    assert options_of("tpu", "TPU v6 lite", "default") == {"xla_tpu_dot_dot_fusion": False}
    assert options_of("tpu", "TPU v5", "default") == {}
    assert set(options_of("tpu", "TPU v6 lite", "overlap")) > {"xla_tpu_dot_dot_fusion"}
    assert all("gpu" in name for name in options_of("gpu", "NVIDIA H200", "overlap"))
    assert options_of("gpu", "NVIDIA H200", "library_products") == {"xla_gpu_enable_triton_gemm": False}
    assert options_of("tpu", "TPU v5", "library_products") == {}
    assert compiler_options(jax.devices("cpu")[0], "overlap") == {}


@pytest.mark.parametrize(("target", "platform"), [("h200", "gpu"), ("v5e:1x1", "tpu")])
def test_a_compiler_that_is_here_knows_every_name(target: str, platform: str) -> None:
    """In the environments of `make compile-pod`; CI's own has the CPU's compiler alone."""
    parsed = parse_target(target)
    described = describe(parsed)
    if not compiler_installed(parsed):
        assert described.stand_in
        return
    there = jax.sharding.SingleDeviceSharding(described.devices[0])
    for options in CHOSEN.values():
        program = jax.jit(lambda x: x + 1, compiler_options=dict(options.get(platform, {})))
        program.lower(jax.ShapeDtypeStruct((4,), "float32", sharding=there)).compile()
