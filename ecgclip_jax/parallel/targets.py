"""Accelerators to compile for without owning them: what a target's name means, its facts, its described devices.

The real TPU and CUDA compilers are ordinary packages (extras `[tpu]` and `[cuda]`) and run on a machine without the
hardware. Where neither is installed, plain CPU devices stand in: shardings, state and collectives hold, kernels do not.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import jax
from jax.experimental import topologies

from ecgclip_jax.spec.errors import UserError

GPUS_PER_HOST = 8
_GIB = 2**30


class TargetError(UserError):
    """A target that does not exist or that cannot be compiled for here; the message says what to do."""


@dataclass(frozen=True)
class DeviceFacts:
    """What a device can do at most: vendors' figures, dense, per device and second; no device reaches them.

    Sources. GPUs: NVIDIA's data sheets (SXM boards), and XLA's own device descriptions
    (`xla/backends/gpu/target_config/specs`) for what `describe_gpu` writes. TPUs: Google Cloud's pages `tpu/docs/v5e`,
    `v5p` and `v6e`; usable memory is what their compiler states. Highest-precision float32 on a TPU is six bfloat16
    passes. Network: one InfiniBand port per GPU as in a DGX (A100 200 Gb/s, H100 and H200 400 Gb/s).
    """

    family: Literal["gpu", "tpu"]
    title: str
    memory_bytes: int
    bfloat16_flops: float
    float32_flops: float
    """Products of float32 at the compiler's default precision (TF32 on a GPU, one bfloat16 pass on a TPU)."""
    float32_exact_flops: float
    """Products of float32 at highest precision."""
    memory_bandwidth: float
    link_bandwidth: float
    """To the other devices of the host or slice, all links together, one direction."""
    links: int
    """Links that a device has of its own: a permutation to one neighbour uses one of them (a GPU's switch: all)."""
    network_bandwidth: float | None
    """To other hosts, one direction; None where the links reach every device of the target (a TPU slice)."""


FACTS: dict[str, DeviceFacts] = {
    "a100": DeviceFacts(
        "gpu", "NVIDIA A100 SXM 80 GB", 85_100_068_864, 312e12, 156e12, 19.5e12, 2.039e12, 300e9, 1, 25e9
    ),
    "h100": DeviceFacts(
        "gpu", "NVIDIA H100 SXM 80 GB", 84_942_979_072, 989.4e12, 494.7e12, 66.9e12, 3.35e12, 450e9, 1, 50e9
    ),
    "h200": DeviceFacts(
        "gpu", "NVIDIA H200 SXM 141 GB", 150_000_000_000, 989.4e12, 494.7e12, 66.9e12, 4.8e12, 450e9, 1, 50e9
    ),
    "v5e": DeviceFacts("tpu", "TPU v5e", int(15.75 * _GIB), 197e12, 197e12, 197e12 / 6, 819e9, 200e9, 4, None),
    "v5p": DeviceFacts("tpu", "TPU v5p", int(95.74 * _GIB), 459e12, 459e12, 459e12 / 6, 2.765e12, 600e9, 6, None),
    "v6e": DeviceFacts("tpu", "TPU v6e", int(31.25 * _GIB), 918e12, 918e12, 918e12 / 6, 1.64e12, 400e9, 4, None),
}

_TOPOLOGIES = {
    "v5e": "v5e:1x1 v5e:2x2 v5e:4x4 v5e:8x8 v5e:16x16",
    "v5p": "v5p:1x1x1 v5p:2x2x1 v5p:2x2x2 v5p:4x4x4 v5p:8x8x8",
    "v6e": "v6e:1x1 v6e:2x2 v6e:4x4 v6e:8x8 v6e:16x16",
}
_DEVICE_KINDS = {
    "NVIDIA A100-SXM4-80GB": "a100", "NVIDIA H100 80GB HBM3": "h100", "NVIDIA H200": "h200", "TPU v5 lite": "v5e",
    "TPU v5": "v5p", "TPU v5p": "v5p", "TPU v6 lite": "v6e",
}  # fmt: skip
"""How devices of a target call themselves: boards of other forms (PCIe, NVL) have other peaks and stand for nothing."""
_EXTRA = {"gpu": "cuda", "tpu": "tpu"}


@dataclass(frozen=True)
class Target:
    """What was asked for: so many devices of a kind. `facts` is None for plain CPU devices."""

    text: str
    name: str
    n_devices: int
    facts: DeviceFacts | None


@dataclass(frozen=True)
class DescribedDevices:
    """Devices that a program can be compiled for, but that need not exist."""

    target: Target
    devices: Sequence[jax.Device]
    stand_in: bool
    """CPU devices in place of the target's: its compiler is not installed here."""

    @property
    def compiler(self) -> str:
        """Whose compiler compiles, in words."""
        family = "cpu" if self.stand_in or self.target.facts is None else self.target.facts.family
        return {"cpu": "XLA:CPU", "gpu": "XLA:GPU (CUDA)", "tpu": "XLA:TPU"}[family]


def parse_target(text: str) -> Target:
    """`h200` (one GPU), `h200:64` (8 hosts of 8), `v5e:16x16` (chips of a slice), `cpu` or `cpu:8`.

    Raises:
        TargetError: a name or a size that is no target; the message lists what is.
    """
    name, _, size = text.strip().lower().partition(":")
    facts = FACTS.get(name)
    if name != "cpu" and facts is None:
        raise TargetError(f"no target is called {text!r}; there are: {target_names()}")
    if facts is not None and facts.family == "tpu":
        return Target(f"{name}:{size}", name, _chips(name, size), facts)
    n_devices = _count(text, size)
    if facts is not None and n_devices > GPUS_PER_HOST and n_devices % GPUS_PER_HOST:
        raise TargetError(
            f"target {text!r}: a host has {GPUS_PER_HOST} GPUs, so ask for 1 to {GPUS_PER_HOST} or a multiple of it"
        )
    return Target(f"{name}:{n_devices}", name, n_devices, facts)


def target_names() -> str:
    """Every target with an example of its sizes."""
    gpus = ", ".join(f"{name}[:N]" for name, facts in FACTS.items() if facts.family == "gpu")
    return f"cpu[:N], {gpus}, {', '.join(shapes.replace(' ', ', ') for shapes in _TOPOLOGIES.values())}"


def kind_facts(device_kind: str) -> DeviceFacts | None:
    """What a device of the kind that jax calls so can do; None where that is not known."""
    return FACTS.get(_DEVICE_KINDS.get(device_kind, ""))


def attached(devices: Sequence[jax.Device]) -> DescribedDevices:
    """Devices that are there, described as those of a target; without facts where their kind's peaks are not known."""
    kind = devices[0].device_kind
    name = _DEVICE_KINDS.get(kind, kind)
    return DescribedDevices(Target(f"{name}:{len(devices)}", name, len(devices), FACTS.get(name)), devices, False)


def describe(target: Target) -> DescribedDevices:
    """The target's devices, ready to compile for; CPU devices where its compiler is not installed.

    Call it before anything else uses jax in this process: CPU devices are counted out only once.

    Raises:
        TargetError: a slice shape that the TPU compiler does not know, or a process that is bound to fewer devices.
    """
    _quiet_compilers()
    if target.facts is None or not compiler_installed(target):
        return DescribedDevices(target, _cpu_devices(target.n_devices), stand_in=target.facts is not None)
    if target.facts.family == "tpu":
        return DescribedDevices(target, _tpu_devices(target), stand_in=False)
    local = min(target.n_devices, GPUS_PER_HOST)
    topology = topologies.get_topology_desc(
        "", "cuda", target_config=describe_gpu(target.name), topology=f"1x{target.n_devices // local}x{local}"
    )
    return DescribedDevices(target, topology.devices, stand_in=False)


def compiler_installed(target: Target) -> bool:
    """Whether the target's own compiler can run here."""
    if target.facts is None:
        return True
    modules = ("libtpu",) if target.facts.family == "tpu" else ("jax_plugins.xla_cuda13", "jax_plugins.xla_cuda12")
    return any(_findable(module) for module in modules)


def extra_of(target: Target) -> str:
    """The extra of this package that brings the target's compiler."""
    return "" if target.facts is None else _EXTRA[target.facts.family]


def describe_gpu(name: str) -> str:
    """XLA's description of a GPU (`GpuTargetConfigProto` as text), which its compiler takes in place of the card."""
    card = _CARDS[name]
    facts = FACTS[name]
    return f"""gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: {card.shared_memory_per_core}
  threads_per_core_limit: 2048
  core_count: {card.cores}
  fpus_per_core: {card.fpus_per_core}
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: {int(facts.memory_bandwidth)}
  l2_cache_size: {card.l2_bytes}
  clock_rate_ghz: {card.clock_ghz}
  device_memory_size: {facts.memory_bytes}
  shared_memory_per_block_optin: {card.shared_memory_per_core - 1024}
  cuda_compute_capability {{ major: {card.capability} minor: 0 }}
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 patch: 0 }}
device_description_str: "{facts.title}"
"""


@dataclass(frozen=True)
class _Card:
    capability: int
    cores: int
    fpus_per_core: int
    clock_ghz: float
    l2_bytes: int
    shared_memory_per_core: int


_CARDS = {
    "a100": _Card(8, 108, 64, 1.41, 40 * 2**20, 167_936),
    "h100": _Card(9, 132, 128, 1.98, 50 * 2**20, 233_472),
    "h200": _Card(9, 132, 128, 1.98, 50 * 2**20, 233_472),
}


def _count(text: str, size: str) -> int:
    if size and not re.fullmatch(r"[1-9]\d*", size):
        raise TargetError(f"target {text!r}: expected a number of devices after the colon, for example {text[:4]}:8")
    return int(size or 1)


def _chips(name: str, shape: str) -> int:
    axes = 3 if name == "v5p" else 2
    if not re.fullmatch("x".join([r"[1-9]\d*"] * axes), shape):
        raise TargetError(
            f"target {name}{':' if shape else ''}{shape} needs the shape of its slice, for example "
            f"{', '.join(_TOPOLOGIES[name].split())}"
        )
    chips = 1
    for axis in shape.split("x"):
        chips *= int(axis)
    return chips


def _tpu_devices(target: Target) -> Sequence[jax.Device]:
    bounds = {"chips_per_host_bounds": [1, 1, 1]} if target.n_devices == 1 else {}
    try:
        return topologies.get_topology_desc(platform="tpu", topology_name=target.text, **bounds).devices
    except (RuntimeError, ValueError) as error:
        raise TargetError(
            f"the TPU compiler has no slice {target.text} ({str(error).splitlines()[0]}); shapes that exist: "
            f"{', '.join(_TOPOLOGIES[target.name].split())}"
        ) from error


def _cpu_devices(number: int) -> Sequence[jax.Device]:
    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        with contextlib.suppress(RuntimeError):  # jax has been used before in this process: take of what it has
            jax.config.update("jax_num_cpu_devices", number)
    devices = jax.devices("cpu")
    if len(devices) < number:
        raise TargetError(
            f"{number} CPU devices were asked for, this process is bound to {len(devices)}; set "
            f"XLA_FLAGS=--xla_force_host_platform_device_count={number} before it starts"
        )
    return devices[:number]


def _quiet_compilers() -> None:
    """Neither looks for its hardware: this machine's own devices, if any, are left alone, and nothing is warned of."""
    quiet = {
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "TPU_WORKER_ID": "0",
        "TPU_ACCELERATOR_TYPE": "v5litepod-4",
        "TPU_MIN_LOG_LEVEL": "3",
        "TPU_STDERR_LOG_LEVEL": "3",
        "JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    for name, value in quiet.items():
        os.environ.setdefault(name, value)
    jax.config.update("jax_platforms", "cpu")


def _findable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False
