"""Traces read: a GPU's streams, a TPU's line of instructions, XLA:CPU's starts and ends; written by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from jax.profiler import ProfileData

from ecgclip_jax.parallel.hlo_cost import Kernel
from ecgclip_jax.parallel.op_times import TraceError, read_op_times
from ecgclip_jax.training.profiling import REST, kind_times, module_name, part_of

Event = tuple[str, int, int, dict[str, str | int]]
"""Name, start and duration in ns, facts."""


def trace(folder: Path, *planes: tuple[str, dict[str, list[Event]]]) -> Path:
    """A trace of these planes, each a name and its lines of events, as the profiler would lay it into `folder`."""
    text = "".join(_plane(name, lines) for name, lines in planes)
    file = folder / "plugins" / "profile" / "now" / "host.xplane.pb"
    file.parent.mkdir(parents=True)
    file.write_bytes(ProfileData.text_proto_to_serialized_xspace(text))
    return folder


def _plane(name: str, lines: dict[str, list[Event]]) -> str:
    events = sorted({event for line in lines.values() for event, *_ in line})
    facts = sorted({fact for line in lines.values() for *_, found in line for fact in found})
    words = [f'name: "{name}"']
    for line, listed in lines.items():
        written = []
        for event, start, duration, found in listed:
            stats = "".join(
                f"stats {{ metadata_id: {facts.index(fact) + 1} "
                + (f'str_value: "{value}"' if isinstance(value, str) else f"uint64_value: {value}")
                + " } "
                for fact, value in found.items()
            )
            place = f"offset_ps: {start * 1000} duration_ps: {duration * 1000}"
            written.append(f"events {{ metadata_id: {events.index(event) + 1} {place} {stats}}}")
        words.append(f'lines {{ name: "{line}" {" ".join(written)} }}')
    for kind, names in (("event", events), ("stat", facts)):
        words += [
            f'{kind}_metadata {{ key: {i} value {{ id: {i} name: "{n}" }} }}' for i, n in enumerate(names, start=1)
        ]
    return f"planes {{ {' '.join(words)} }}\n"


def of(op: str, module: str = "jit_step", **more: int) -> dict[str, str | int]:
    return {"hlo_op": op, "hlo_module": module, **more}


def test_kernels_of_all_streams_of_a_gpu_count_for_their_instruction(tmp_path: Path) -> None:
    streams: dict[str, list[Event]] = {
        "Stream #7(Compute)": [
            ("sm90_conv", 0, 500, of("conv.1")),
            ("split_k", 500, 100, of("conv.1")),
            ("other", 0, 999, of("conv.1", "jit_other")),
            ("memset", 0, 7, {}),
        ],
        "Stream #9(Compute)": [("loop_fusion", 100, 50, of("fusion.2"))],
    }
    host: dict[str, list[Event]] = {"threads": [("conv.1", 0, 10**6, of("conv.1"))]}
    times = read_op_times(trace(tmp_path, ("/host:CPU", host), ("/device:GPU:0", streams)), "jit_step")
    assert times.of_devices
    assert dict(times.seconds) == pytest.approx({"conv.1": 600e-9, "fusion.2": 50e-9})
    assert dict(times.runs) == {"conv.1": 2, "fusion.2": 1}


def test_a_tpu_lists_instructions_on_a_line_of_their_own(tmp_path: Path) -> None:
    lines: dict[str, list[Event]] = {
        "XLA Modules": [("jit_step(123)", 0, 1000, {})],
        "XLA Ops": [("%fusion.3 = bf16[8,128]{1,0} fusion(%p)", 0, 400, {}), ("%copy = f32[]", 400, 5, {})],
    }
    times = read_op_times(trace(tmp_path, ("/device:TPU:0", lines)), "jit_step")
    assert dict(times.seconds) == pytest.approx({"fusion.3": 400e-9, "copy": 5e-9})


def test_an_instruction_on_a_cpu_lasts_until_its_end_is_noted(tmp_path: Path) -> None:
    """A large one returns at once and ends in another thread; its second run is not taken for its first."""
    threads: dict[str, list[Event]] = {
        "one": [("conv", 0, 10, of("conv", _p=5)), ("conv", 2000, 10, of("conv", _p=6)), ("add", 0, 30, of("add"))],
        "two": [("end: conv", 700, 1, {"_c": 5}), ("end: conv", 2900, 1, {"_c": 6})],
    }
    times = read_op_times(trace(tmp_path, ("/host:CPU", threads)), "jit_step")
    assert not times.of_devices
    assert dict(times.seconds) == pytest.approx({"conv": 1600e-9, "add": 30e-9})


def test_without_a_trace_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="no trace"):
        read_op_times(tmp_path, "jit_step")
    assert not read_op_times(trace(tmp_path, ("/host:CPU", {})), "jit_step").runs


def test_kinds_are_sums_over_kernels_per_run_of_the_step(tmp_path: Path) -> None:
    forward = Kernel("conv.1", "convolution", 1000, "jit(step)/jvp(ecg_tower)/conv_general_dilated")
    backward = Kernel("conv.2", "convolution", 500, "jit(step)/transpose(jvp(ecg_tower))/conv_general_dilated")
    loop: dict[str, list[Event]] = {
        "s": [("k", 0, 600, of("conv.1")), ("k", 600, 200, of("conv.2")), ("k", 800, 600, of("conv.1")),
              ("w", 0, 9999, of("while.3"))],
    }  # fmt: skip
    times = read_op_times(trace(tmp_path, ("/device:GPU:0", loop)), "jit_step")
    (kind,) = kind_times({"conv.1": forward, "conv.2": backward}, times, runs_of_step=2)
    assert (kind.part, kind.kind) == ("ECG tower", "convolution")
    assert (kind.forward_s, kind.backward_s, kind.runs) == pytest.approx((600e-9, 100e-9, 1.5))
    assert kind.n_bytes == pytest.approx((2 * 1000 + 500) / 2)


def test_names_of_the_program_tell_the_part_of_the_step() -> None:
    assert part_of("jit(_train_step)/transpose(jvp(text_tower))/dot_general") == "text tower"
    assert part_of("jit(_train_step)/optimizer/dynamic_update_slice") == "optimizer"
    assert part_of("jit(_train_step)/jvp()/dot_general") == REST
    assert module_name("HloModule jit__train_step, is_scheduled=true\n") == "jit__train_step"
    assert module_name("HloModule m\n\nENTRY %main") == "m"
