"""What can be compiled for: names, sizes, descriptions, and one sentence for every mistake."""

from __future__ import annotations

import jax
import pytest

from ecgclip_jax.parallel import targets
from ecgclip_jax.parallel.hlo_collectives import Collective
from ecgclip_jax.parallel.hlo_cost import ProgramCost
from ecgclip_jax.parallel.roofline import collective_s, roofline
from ecgclip_jax.parallel.targets import FACTS, TargetError, describe, describe_gpu, parse_target


@pytest.mark.parametrize(
    ("text", "n_devices"),
    [("cpu", 1), ("cpu:8", 8), ("h200", 1), ("H100:8", 8), ("a100:64", 64), ("v5e:16x16", 256), ("v5p:2x2x1", 4)],
)
def test_a_targets_name_says_how_many_devices(text: str, n_devices: int) -> None:
    target = parse_target(text)
    assert target.n_devices == n_devices
    assert (target.facts is None) == (target.name == "cpu")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("b200", "no target is called 'b200'; there are: cpu[:N], a100[:N], h100[:N], h200[:N], v5e:1x1"),
        ("v5e", "needs the shape of its slice, for example v5e:1x1"),
        ("v5e:256", "needs the shape of its slice"),
        ("v5p:4x4", "needs the shape of its slice, for example v5p:1x1x1"),
        ("h200:12", "ask for 1 to 8 or a multiple of it"),
        ("h200:many", "expected a number of devices after the colon"),
        ("cpu:0", "expected a number of devices after the colon"),
    ],
)
def test_a_wrong_target_is_explained(text: str, said: str) -> None:
    with pytest.raises(TargetError, match="target") as error:
        parse_target(text)
    assert said in str(error.value)


def test_cpu_devices_stand_in_where_the_compiler_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "compiler_installed", lambda target: False)
    described = describe(parse_target("v6e:2x2"))
    assert described.stand_in
    assert described.compiler == "XLA:CPU"
    assert [device.platform for device in described.devices] == ["cpu"] * 4
    with pytest.raises(TargetError, match=f"this process is bound to {len(jax.devices())}"):
        describe(parse_target("v6e:16x16"))


def test_plain_cpu_devices_stand_for_themselves() -> None:
    described = describe(parse_target("cpu:8"))
    assert not described.stand_in
    assert list(described.devices) == jax.devices()[:8]


def test_each_gpu_is_described_with_its_own_memory() -> None:
    for name, facts in FACTS.items():
        if facts.family == "gpu":
            assert f"device_memory_size: {facts.memory_bytes}\n" in describe_gpu(name)
    assert "major: 8 minor: 0" in describe_gpu("a100")


def test_bounds_by_hand() -> None:
    """H200: 9.894e11 bfloat16 FLOP in 1 ms, 4.8 GB in 1 ms, an all-reduce of 900 MB over two GPUs in 2 ms."""
    cost = ProgramCost()
    cost.flops.update({"bfloat16": int(989.4e9), "float32_exact": int(66.9e9)})
    cost.add_kernel("elementwise", 2, int(2.4e9))
    cost.collectives.append(Collective("all-reduce", int(900e6), ((0, 1),), 1))
    found = roofline(cost, FACTS["h200"], [0, 0])
    assert (found.compute_s, found.memory_s, found.interconnect_s) == pytest.approx((2e-3, 1e-3, 2e-3))
    assert found.bound_s == pytest.approx(2e-3)


def test_what_leaves_a_host_goes_over_the_network() -> None:
    shift = Collective("collective-permute", int(50e6), ((0, 1), (1, 0)), 3)
    assert collective_s(shift, FACTS["h200"], [0, 1]) == pytest.approx(3e-3)
    assert collective_s(shift, FACTS["h200"], [0, 0]) == pytest.approx(3 * 50e6 / 450e9)
    assert collective_s(shift, FACTS["v5e"], [0, 1]) == pytest.approx(3 * 50e6 / 50e9), "one link of a chip's four"
