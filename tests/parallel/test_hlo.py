"""Accounting of compiled programs against sums by hand: real programs of the CPU compiler, and lines of the others."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array
from jax.sharding import AxisType, PartitionSpec

from ecgclip_jax.parallel.hlo import ArrayShape, Program, bits_of, parse_program, parse_shapes
from ecgclip_jax.parallel.hlo_collectives import Collective, replica_groups
from ecgclip_jax.parallel.hlo_cost import ProgramCost, kept_for_backward, largest_arrays, program_cost


def compiled(function: Callable[..., object], *shapes: tuple[int, ...]) -> Program:
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return parse_program(jax.jit(function).lower(*arguments).compile().as_text() or "")


def cost_of(function: Callable[..., object], *shapes: tuple[int, ...]) -> ProgramCost:
    return program_cost(compiled(function, *shapes), n_devices=1)


def written(*lines: str, more: str = "") -> Program:
    """A program of these instructions."""
    return parse_program(
        "HloModule m\n\n" + more + "ENTRY %main (a: f32[1]) -> f32[1] {\n" + "\n".join(lines) + "\n}\n"
    )


def test_a_matrix_product_reads_both_factors_and_writes_the_result() -> None:
    cost = cost_of(lambda a, b: a @ b, (64, 128), (128, 32))
    assert sum(cost.flops.values()) == 2 * 64 * 128 * 32
    assert cost.kernels["matrix product"].n_bytes == 4 * (64 * 128 + 128 * 32 + 64 * 32)
    assert cost.n_bytes == cost.kernels["matrix product"].n_bytes
    assert not cost.collectives


def test_a_batched_product_counts_every_batch() -> None:
    cost = cost_of(lambda a, b: jnp.einsum("bij,bjk->bik", a, b), (5, 16, 8), (5, 8, 32))
    assert sum(cost.flops.values()) == 5 * 2 * 16 * 8 * 32


def test_elementwise_work_moves_bytes_and_counts_no_flops() -> None:
    cost = cost_of(lambda a, b: jnp.tanh(a) * b + 1, (1000, 10), (1000, 10))
    assert sum(cost.flops.values()) == 0
    assert cost.kernels["elementwise"].n_bytes == 3 * 4 * 10_000


def test_a_loops_body_counts_as_often_as_it_runs() -> None:
    def seven_times(x: Array, w: Array) -> Array:
        return jax.lax.scan(lambda x, _: (jnp.tanh(x @ w), None), x, None, length=7)[0]

    cost = cost_of(seven_times, (32, 64), (64, 64))
    assert cost.unknown_loops == 0
    assert sum(cost.flops.values()) == 7 * 2 * 32 * 64 * 64
    products = cost.kernels["matrix product"]
    assert products.runs == 7
    assert products.n_bytes >= 7 * 4 * (32 * 64 + 64 * 64)


def test_a_loop_of_unknown_length_is_said_to_be_one() -> None:
    def until_small(x: Array) -> Array:
        return jax.lax.while_loop(lambda x: x.sum() > 1, lambda x: x / 2, x)

    assert cost_of(until_small, (1000,)).unknown_loops == 1


def test_a_slice_of_a_large_array_costs_the_slice() -> None:
    """A loop over 200 rows reads each row once: 200 rows, not 200 arrays."""

    def summed(rows: Array) -> Array:
        return jax.lax.scan(lambda total, row: (total + jnp.sin(row), None), jnp.zeros(rows.shape[1]), rows)[0]

    whole = 200 * 1000 * 4
    assert whole <= cost_of(summed, (200, 1000)).n_bytes < 8 * whole


def test_an_update_in_place_costs_the_update() -> None:
    def squares(rows: Array) -> Array:
        return jax.lax.scan(lambda _, row: (None, row * row), None, rows)[1]

    whole = 200 * 1000 * 4
    assert 2 * whole <= cost_of(squares, (200, 1000)).n_bytes < 8 * whole


@pytest.mark.parametrize(("stride", "padding"), [(1, (1, 1)), (2, (1, 1)), (2, (3, 0))])
def test_convolutions_count_the_taps_that_meet_a_value(stride: int, padding: tuple[int, int]) -> None:
    """Forward by hand; both gradients touch the same (input, weight, output) triples, so each costs as much."""
    batch, time, width_in, width_out, taps = 3, 50, 8, 16, 5

    def convolve(x: Array, w: Array) -> Array:
        return jax.lax.conv_general_dilated(x, w, (stride,), [padding], dimension_numbers=("NWC", "WIO", "NWC"))

    outputs = (time + sum(padding) - taps) // stride + 1
    positions = np.arange(outputs)[:, None] * stride - padding[0] + np.arange(taps)
    by_hand = 2 * batch * width_in * width_out * int(((positions >= 0) & (positions < time)).sum())
    shapes = ((batch, time, width_in), (taps, width_in, width_out))
    forward = cost_of(convolve, *shapes)
    assert sum(forward.flops.values()) == by_hand
    assert "convolution" in forward.kernels
    both = cost_of(jax.grad(lambda x, w: jnp.square(convolve(x, w)).sum(), argnums=(0, 1)), *shapes)
    assert sum(both.flops.values()) == 3 * by_hand


def test_precision_follows_the_operands() -> None:
    def exact(a: Array, b: Array) -> Array:
        return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)

    assert set(cost_of(exact, (64, 64), (64, 64)).flops) == {"float32_exact"}
    assert set(cost_of(lambda a, b: a @ b, (64, 64), (64, 64)).flops) == {"float32"}
    line = "  ROOT %d = bf16[8,8]{1,0} dot(%a, %a), lhs_contracting_dims={1}, rhs_contracting_dims={0}"
    assert set(program_cost(written("  %a = bf16[8,8]{1,0} parameter(0)", line), n_devices=1).flops) == {"bfloat16"}


def sharded(function: Callable[[Array], Array], size: int, out: PartitionSpec) -> list[Collective]:
    mesh = jax.make_mesh((8,), ("x",), devices=jax.devices()[:8], axis_types=(AxisType.Auto,))
    mapped = jax.shard_map(function, mesh=mesh, in_specs=PartitionSpec("x"), out_specs=out)
    argument = jax.ShapeDtypeStruct(
        (8 * size,), jnp.float32, sharding=jax.sharding.NamedSharding(mesh, PartitionSpec("x"))
    )
    program = parse_program(jax.jit(mapped).lower(argument).compile().as_text() or "")
    return program_cost(program, n_devices=8).collectives


def test_an_all_reduce_on_eight_devices() -> None:
    (found,) = sharded(lambda x: jax.lax.psum(x, "x"), 1000, PartitionSpec())
    assert (found.kind, found.payload_bytes, found.group_size, found.runs) == ("all-reduce", 4000, 8, 1)
    assert found.sent_bytes == pytest.approx(2 * 7 / 8 * 4000)
    assert found.crossing_bytes([0] * 8) == 0
    assert found.crossing_bytes([0] * 4 + [1] * 4) == pytest.approx(2 * 1 / 2 * 4000 / 4)


def test_a_gather_and_a_permutation_on_eight_devices() -> None:
    (gather,) = sharded(lambda x: jax.lax.all_gather(x, "x", tiled=True), 1000, PartitionSpec("x"))
    assert (gather.kind, gather.payload_bytes, gather.sent_bytes) == ("all-gather", 32_000, 28_000)
    ring = [(d, (d + 1) % 8) for d in range(8)]
    (shift,) = sharded(lambda x: jax.lax.ppermute(x, "x", ring), 1000, PartitionSpec("x"))
    assert (shift.kind, shift.payload_bytes, sorted(shift.groups)) == ("collective-permute", 4000, sorted(ring))
    assert shift.crossing_bytes([0] * 4 + [1] * 4) == 4000


def test_a_collective_in_a_loop_runs_as_often() -> None:
    ring = [(d, (d + 1) % 8) for d in range(8)]

    def round_trip(x: Array) -> Array:
        return jax.lax.scan(lambda x, _: (jax.lax.ppermute(jnp.sin(x), "x", ring), None), x, None, length=8)[0]

    assert sum(found.runs for found in sharded(round_trip, 100, PartitionSpec("x"))) == 8


@pytest.mark.parametrize(
    ("text", "groups"),
    [
        ("replica_groups={{0,1},{2,3}}, x=1", [[0, 1], [2, 3]]),
        ("replica_groups=[2,2]<=[4], x=1", [[0, 1], [2, 3]]),
        ("replica_groups=[2,2]<=[2,2]T(1,0), x=1", [[0, 2], [1, 3]]),
        ("replica_groups=mesh['a'=2,'b'=2] {'a'}, x=1", [[0, 2], [1, 3]]),
        ("replica_groups={}, x=1", [[0, 1, 2, 3]]),
    ],
)
def test_groups_of_devices_in_every_way_of_writing(text: str, groups: list[list[int]]) -> None:
    assert replica_groups(text, 4).tolist() == groups


def test_tiles_of_a_tpu_are_padded_and_its_own_memory_is_told_apart() -> None:
    (padded,) = parse_shapes("bf16[3,5]{1,0:T(8,128)(2,1)}")
    assert padded.n_bytes == 8 * 128 * 2
    (transposed,) = parse_shapes("f32[130,2]{0,1:T(2,128)S(1)}")
    assert (transposed.n_bytes, transposed.memory_space) == (256 * 2 * 4, 1)
    assert parse_shapes("(f32[], s32[2]{0})") == (ArrayShape("f32", (), ""), ArrayShape("s32", (2,), "0"))
    assert [bits_of(dtype) for dtype in ("pred", "s4", "f8e4m3fn", "token")] == [8, 4, 8, 0]
    program = written(
        "  %a = f32[128]{0:T(128)} parameter(0)",
        "  %s = (f32[128]{0:T(128)S(1)}, f32[128]{0:T(128)}, u32[]{:S(2)}) copy-start(%a)",
        "  %d = f32[128]{0:T(128)S(1)} copy-done(%s)",
        "  ROOT %n = f32[128]{0:T(128)} negate(%d)",
    )
    assert program_cost(program, n_devices=1, on_chip_spaces=True).n_bytes == 512 + 512
    assert program_cost(program, n_devices=1).n_bytes == 4 * 512


def test_a_collective_that_tpu_fusions_carry_on_counts_once() -> None:
    body = (
        "  %p = f32[4]{{0}} parameter(0)\n"
        "  %g = f32[16]{{0}} all-gather(%p), channel_id=1, replica_groups={{{{0,1,2,3}}}}, dimensions={{0}}\n"
        '  ROOT %c = (f32[4]{{0}}, f32[16]{{0}}) custom-call(%g), custom_call_target="{}"\n}}\n\n'
    )
    head = "%{} (p: f32[4]) -> (f32[4], f32[16]) {{\n"
    more = head.format("start") + body.format("AsyncCollectiveStart")
    more += head.format("async_collective_fusion.1") + body.format("other")
    more += head.format("end") + body.format("AsyncCollectiveDone")
    lines = ["  %a = f32[4]{0} parameter(0)"] + [
        f"  %f{n} = (f32[4]{{0}}, f32[16]{{0}}) fusion(%a), kind=kCustom, calls=%{name}"
        for n, name in enumerate(("start", "async_collective_fusion.1", "end"))
    ]
    assert [found.runs for found in program_cost(written(*lines, more=more), n_devices=4).collectives] == [1]


def test_cudnn_convolutions_count_by_the_forward_shapes() -> None:
    """Batch 2, 10 steps, 3 taps, 4 to 8 channels: the same products forwards, to the input and to the filter."""
    call = (
        'custom-call(%{}, %{}), window={{size=3 pad=1_1}}, dim_labels=b0f_o0i->b0f, custom_call_target="__cudnn$conv{}"'
    )
    program = written(
        "  %x = bf16[2,10,4]{2,1,0} parameter(0)",
        "  %w = bf16[8,3,4]{2,1,0} parameter(1)",
        "  %y = bf16[2,10,8]{2,1,0} parameter(2)",
        "  %f = (bf16[2,10,8]{2,1,0}, u8[0]{0}) " + call.format("x", "w", "Forward"),
        "  %i = (bf16[2,10,4]{2,1,0}, u8[0]{0}) " + call.format("y", "w", "BackwardInput"),
        "  %b = (bf16[8,3,4]{2,1,0}, u8[0]{0}) " + call.format("x", "y", "BackwardFilter"),
    )
    cost = program_cost(program, n_devices=1)
    assert dict(cost.flops) == {"bfloat16": 3 * 2 * (2 * 10 * 8) * 3 * 4}
    assert cost.kernels["convolution"].runs == 3


def test_of_two_branches_the_heavier_counts() -> None:
    cost = cost_of(
        lambda x: jax.lax.cond(x[0, 0] > 0, lambda x: x @ x @ x, lambda x: x @ x, x),
        (64, 64),
    )
    assert sum(cost.flops.values()) == 2 * 2 * 64**3


def test_what_the_forward_pass_keeps() -> None:
    """Of a chain of three layers the backward pass needs each layer's result; of nothing, nothing."""

    def loss(weights: list[Array], x: Array) -> Array:
        for weight in weights:
            x = jnp.tanh(x @ weight)
        return x.sum()

    def step(a: Array, b: Array, c: Array, x: Array) -> list[Array]:
        return jax.grad(loss)([a, b, c], x)

    layer = 4 * 256 * 128
    kept = kept_for_backward(compiled(step, *[(128, 128)] * 3, (256, 128)))
    assert 2 * layer <= kept <= 4 * layer
    assert kept_for_backward(compiled(lambda x: jnp.sin(x) @ x, (64, 64))) == 0


def test_largest_arrays_first() -> None:
    program = compiled(lambda a, b: (a @ b, a @ jnp.sin(b), b.sum(axis=1)), (512, 4), (4, 600))
    found = largest_arrays(program, 3)
    shape, count, operation = found[0]
    assert (shape.dims, count) == ((512, 600), 2)
    assert "dot_general" in operation
    assert [entry[0].n_bytes for entry in found] == sorted((entry[0].n_bytes for entry in found), reverse=True)


def test_text_that_is_no_program_is_refused() -> None:
    with pytest.raises(ValueError, match="not the text of a compiled program"):
        parse_program("HloModule m\n")
    with pytest.raises(ValueError, match="does not know"):
        bits_of("strange")
