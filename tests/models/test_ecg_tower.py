"""The ECG tower without PyTorch: exact sizes, BatchNorm by hand, independence of the mesh, dtypes, determinism."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from ecgclip_jax.contracts import EcgInput, EcgOutput
from ecgclip_jax.models.batch_norm import BatchNorm
from ecgclip_jax.models.build import Towers, build_towers
from ecgclip_jax.models.functional import PureModule, parameter_count
from ecgclip_jax.models.resnet1d import trunk_steps
from ecgclip_jax.spec.encoders import ResNet1DSpec
from ecgclip_jax.spec.experiment import DataSpec, Experiment, Source
from ecgclip_jax.spec.objectives import InfoNCESpec
from ecgclip_jax.spec.signal import SignalSpec, ecgclip, merl

TINY = {"width": 4, "pool_width": 16, "pool_heads": 2}
SHORT = merl(samples=160)


def quick_jit(function: Callable[..., Any], **options: Any) -> Any:
    """`jax.jit` for a program that runs once or twice: compiling it well costs more than it saves."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0}, **options)


def towers_of(signal: SignalSpec, batch_global: int = 16, **encoder: Any) -> Towers:
    spec = ResNet1DSpec(**encoder)
    experiment = Experiment(
        name="test",
        summary="test",
        data=DataSpec(sources=(Source(cohort="none"),), batch_global=batch_global),
        signal=signal,
        ecg_encoder=spec,
        objective=InfoNCESpec(embedding_dim=spec.pooled_width),
    )
    return build_towers(experiment, vocab_size=64)


def ecg_batch(signal: SignalSpec, batch: int, seed: int = 0) -> EcgInput:
    x = np.random.default_rng(seed).normal(0.4, 0.2, (batch, signal.samples, len(signal.leads)))
    return EcgInput(
        jnp.asarray(x, jnp.float32), jnp.ones((batch, len(signal.leads)), bool), jnp.ones((batch, signal.samples), bool)
    )


@pytest.fixture(scope="module")
def tiny() -> tuple[dict[str, Any], dict[str, Any]]:
    """Parameters and statistics of the tiny ECG tower (the same for every `norm_groups` and dtype)."""
    params, stats = quick_jit(towers_of(SHORT, **TINY).init)(jax.random.key(0))
    return params["ecg"], stats["ecg"]


def apply(towers: Towers, weights: tuple, ecg: EcgInput, *, train: bool) -> tuple[EcgOutput, dict]:
    return quick_jit(partial(towers.ecg, train=train))(*weights, ecg)


@pytest.mark.parametrize(
    ("depth", "signal", "trunk_count"),
    [
        (18, merl(), 3_848_832),
        (18, ecgclip(), 3_847_040),
        (34, ecgclip(), 7_221_376),
        (50, ecgclip(), 15_957_376),
        (101, merl(), 28_266_624),
    ],
)
def test_parameter_counts_are_the_published_ones(depth: int, signal: SignalSpec, trunk_count: int) -> None:
    towers = towers_of(signal, depth=depth)
    params, _ = jax.eval_shape(towers.init, jax.random.key(0))
    parts = {name: parameter_count(tree) for name, tree in params["ecg"].items()}
    downconv, pool = parts.pop("downconv"), parts.pop("attention_pool")
    assert sum(parts.values()) == trunk_count
    assert towers.feature_width == (512 if depth < 50 else 2048)
    assert downconv == (towers.feature_width + 1) * 256
    # 12 leads, 5000 samples, 512 channels: MERL's numbers.
    assert (downconv == 131_328) == (depth < 50)
    assert pool == (409_600 if signal.samples == 5000 else 409_600 - (314 - 257) * 256)


@pytest.mark.parametrize(("samples", "steps"), [(5000, 313), (4096, 256), (1001, 63), (17, 2)])
def test_the_map_has_one_step_per_16_samples(samples: int, steps: int) -> None:
    signal = merl(samples=samples)
    towers = towers_of(signal, **TINY)
    params, stats = jax.eval_shape(towers.init, jax.random.key(0))
    ecg = jax.eval_shape(lambda: ecg_batch(signal, 2))
    output, _ = jax.eval_shape(lambda p, s, x: towers.ecg(p, s, x, train=False), params["ecg"], stats["ecg"], ecg)
    assert trunk_steps(samples) == steps
    assert output.tokens.shape == (2, steps, 32)
    assert output.pooled.shape == output.pooled_mean.shape == (2, towers.ecg_width) == (2, 16)
    assert output.features.shape == (2, towers.feature_width)


def test_paths_are_stable_and_readable() -> None:
    params, stats = jax.eval_shape(towers_of(SHORT, **TINY).init, jax.random.key(0))
    paths = {"/".join(entry.key for entry in path) for path, _ in jax.tree.leaves_with_path(params)}
    assert paths >= {
        "ecg/stem/kernel",
        "ecg/stage2/block0/conv1/kernel",
        "ecg/stage2/block0/shortcut_norm/scale",
        "ecg/downconv/bias",
        "ecg/attention_pool/attention/query/kernel",
        "text/layer0/attention/query/kernel",
    }
    assert set(stats["ecg"]["stage1"]["block0"]["norm2"]) == {"mean", "var"}


def test_mean_pooling_has_no_pooling_parameters(tiny: tuple) -> None:
    towers = towers_of(SHORT, pooling="mean", width=4)
    weights = ({k: v for k, v in tiny[0].items() if k not in ("downconv", "attention_pool")}, tiny[1])
    assert set(jax.eval_shape(towers.init, jax.random.key(0))[0]["ecg"]) == set(weights[0])
    output, _ = apply(towers, weights, ecg_batch(SHORT, 2), train=False)
    assert towers.ecg_width == towers.feature_width == 32
    np.testing.assert_allclose(output.pooled, output.tokens.mean(axis=1), rtol=1e-6)


def test_initial_values_follow_pytorch(tiny: tuple) -> None:
    params, stats = tiny
    kernel = np.asarray(params["stage4"]["block0"]["conv2"]["kernel"])
    bound = 1 / np.sqrt(3 * 32)
    assert np.abs(kernel).max() <= bound
    assert kernel.std() == pytest.approx(bound / np.sqrt(3), rel=0.05)
    pool = params["attention_pool"]
    assert np.asarray(pool["positions"]).std() == pytest.approx(1 / 16, rel=0.2)
    xavier = np.sqrt(6 / (4 * 16))
    assert 0.9 * xavier < np.abs(pool["attention"]["key"]["kernel"]).max() <= xavier
    assert not np.any(pool["attention"]["out"]["bias"])
    assert np.all(stats["stem_norm"]["var"] == 1)


def test_batch_norm_by_hand() -> None:
    """Two groups of two records, one channel each with its own level: everything in numpy."""
    norm = PureModule(lambda rngs: BatchNorm(3, groups=2, momentum=0.1))
    params, stats = norm.init(jax.random.key(0))
    params = {"scale": jnp.array([1.0, 2.0, 0.5]), "bias": jnp.array([0.0, -1.0, 3.0])}
    x = np.random.default_rng(1).normal([5.0, -2.0, 0.0], [1.0, 3.0, 0.1], (4, 7, 3)).astype(np.float32)
    y, moved = norm.apply(params, stats, jnp.asarray(x), train=True)

    groups = x.astype(np.float64).reshape(2, 14, 3)
    mean, var = groups.mean(axis=1), groups.var(axis=1)
    expected = (groups - mean[:, None]) / np.sqrt(var[:, None] + 1e-5) * params["scale"] + params["bias"]
    np.testing.assert_allclose(y, expected.reshape(4, 7, 3), atol=2e-5)
    np.testing.assert_allclose(moved["mean"], 0.1 * mean.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(moved["var"], 0.9 + 0.1 * (var * 14 / 13).mean(axis=0), rtol=1e-5)

    evaluated, same = norm.apply(params, moved, jnp.asarray(x), train=False)
    by_hand = (x - moved["mean"]) / np.sqrt(moved["var"] + 1e-5) * params["scale"] + params["bias"]
    np.testing.assert_allclose(evaluated, by_hand, atol=1e-5)
    assert same["mean"] is not None
    np.testing.assert_array_equal(same["mean"], moved["mean"])


def test_batch_norm_of_a_constant_channel_is_finite() -> None:
    norm = PureModule(lambda rngs: BatchNorm(1))
    params, stats = norm.init(jax.random.key(0))
    x = jnp.full((4, 50, 1), 1234.567)
    y, gradient = jax.vjp(lambda x: norm.apply(params, stats, x, train=True)[0], x)
    assert np.abs(y).max() < 1
    assert np.all(np.isfinite(gradient(y)[0]))


def test_norm_groups_must_divide_the_batch(tiny: tuple) -> None:
    with pytest.raises(ValueError, match="4 groups do not divide a batch of 6"):
        apply(towers_of(SHORT, norm_groups=4, **TINY), tiny, ecg_batch(SHORT, 6), train=True)


def test_another_length_than_the_signal_spec_is_an_error(tiny: tuple) -> None:
    with pytest.raises(ValueError, match="built for 10 time steps and got 20"):
        apply(towers_of(SHORT, **TINY), tiny, ecg_batch(merl(samples=320), 2), train=False)


def assert_close(a: Any, b: Any, tolerance: float) -> None:
    """Every leaf within `tolerance` of its norm."""
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert np.linalg.norm(x - y) <= tolerance * np.linalg.norm(x) + 1e-5


def on_eight_devices(function: Callable[..., Any], weights: Any, x: Any) -> tuple[Any, str]:
    """The function's value with `x` split over eight devices, and its compiled program."""
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    x = jax.device_put(x, NamedSharding(mesh, PartitionSpec("data")))
    weights = jax.device_put(weights, NamedSharding(mesh, PartitionSpec()))
    compiled = quick_jit(function).lower(*weights, x).compile()
    return compiled(*weights, x), compiled.as_text()


# Sums over the batch travel between devices; activations never do.
MOVES_ACTIVATIONS = re.compile(r"all-gather|all-to-all|collective-permute")


@pytest.mark.parametrize("groups", [1, 2, 16])
def test_batch_norm_does_not_depend_on_the_mesh(groups: int) -> None:
    norm = PureModule(lambda rngs: BatchNorm(4, groups=groups))
    x = jnp.asarray(np.random.default_rng(2).normal(1, 2, (32, 24, 4)), jnp.float32)

    def gradient_and_output(params: dict, stats: dict, x: jax.Array) -> Any:
        def loss(params: dict, x: jax.Array) -> Any:
            y, moved = norm.apply(params, stats, x, train=True)
            return jnp.exp(y).sum(), (y, moved)

        return jax.grad(loss, argnums=(0, 1), has_aux=True)(params, x)

    weights = norm.init(jax.random.key(0))
    spread, program = on_eight_devices(gradient_and_output, weights, x)
    assert_close(quick_jit(gradient_and_output)(*weights, x), spread, 1e-5)
    assert not MOVES_ACTIVATIONS.search(program)


def test_the_mesh_does_not_change_values_statistics_or_gradients(tiny: tuple) -> None:
    towers = towers_of(SHORT, batch_global=32, norm_groups=2, **TINY)
    ecg = ecg_batch(SHORT, 32)

    def value_and_gradient(params: dict, stats: dict, ecg: EcgInput) -> Any:
        def loss(params: dict) -> Any:
            output, moved = towers.ecg(params, stats, ecg, train=True)
            return jnp.square(output.pooled).sum() + jnp.sin(output.features).sum(), (output.pooled, moved)

        return jax.value_and_grad(loss, has_aux=True)(params)

    value, gradient = quick_jit(value_and_gradient)(*tiny, ecg)
    (spread_value, spread_gradient), program = on_eight_devices(value_and_gradient, tiny, ecg)
    assert_close(value, spread_value, 1e-4)
    # Rounding may switch a ReLU that is near zero; a sum over too few rows would be off by a factor.
    assert_close(gradient, spread_gradient, 5e-3)
    assert not MOVES_ACTIVATIONS.search(program)


def all_equations(jaxpr: Any) -> Iterator[Any]:
    """Equations of a traced function and of those that it calls."""
    for equation in jaxpr.eqns:
        yield equation
        for called in equation.params.values():
            if hasattr(called, "eqns"):
                yield from all_equations(called)


def test_bfloat16_computes_in_bfloat16_and_keeps_float32_around_it(tiny: tuple) -> None:
    half, exact, ecg = towers_of(SHORT, dtype="bfloat16", **TINY), towers_of(SHORT, **TINY), ecg_batch(SHORT, 8)
    initial = jax.eval_shape(half.init, jax.random.key(0))
    assert {leaf.dtype for leaf in jax.tree.leaves(initial)} == {jnp.dtype("float32")}
    output, moved = apply(half, tiny, ecg, train=True)
    assert output.tokens.dtype == jnp.bfloat16
    assert {x.dtype for x in (output.pooled, output.features, output.pooled_mean)} == {jnp.dtype("float32")}
    assert {leaf.dtype for leaf in jax.tree.leaves(moved)} == {jnp.dtype("float32")}
    reference, reference_moved = apply(exact, tiny, ecg, train=True)
    np.testing.assert_allclose(output.features, reference.features, atol=0.1)
    np.testing.assert_allclose(moved["stem_norm"]["var"], reference_moved["stem_norm"]["var"], rtol=1e-3)

    # Every convolution takes bfloat16, every reduction over time (a norm's or a mean's) float32.
    equations = list(all_equations(jax.make_jaxpr(lambda x: half.ecg(*tiny, x, train=True))(ecg)))
    convolutions = [e for e in equations if e.primitive.name == "conv_general_dilated"]
    assert len(convolutions) == 20
    assert {v.aval.dtype for e in convolutions for v in e.invars} == {jnp.dtype("bfloat16")}
    sums = [e.invars[0].aval for e in equations if e.primitive.name == "reduce_sum"]
    assert {aval.dtype for aval in sums if aval.ndim == 3} == {jnp.dtype("float32")}


def test_init_is_deterministic_and_shards_as_told(tiny: tuple) -> None:
    towers = towers_of(SHORT, **TINY)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    init = quick_jit(towers.init, out_shardings=NamedSharding(mesh, PartitionSpec()))
    params, stats = init(jax.random.key(0))
    for a, b in zip(jax.tree.leaves(tiny), jax.tree.leaves((params["ecg"], stats["ecg"])), strict=True):
        np.testing.assert_array_equal(a, b)
        assert len(b.sharding.device_set) == 8
    assert not np.array_equal(init(jax.random.key(1))[0]["ecg"]["stem"]["kernel"], params["ecg"]["stem"]["kernel"])


def test_rematerialisation_changes_nothing(tiny: tuple) -> None:
    """`jax.checkpoint` around the pure apply works although BatchNorm moves its statistics inside."""
    towers, ecg = towers_of(SHORT, **TINY), ecg_batch(SHORT, 4)

    def gradients(params: dict, stats: dict) -> list[Any]:
        def loss(params: dict, tower: Callable[..., Any]) -> jax.Array:
            return jnp.square(tower(params, stats, ecg)[0].pooled).sum()

        tower = partial(towers.ecg, train=True)
        return [jax.grad(loss)(params, each) for each in (tower, jax.checkpoint(tower))]

    assert_close(*quick_jit(gradients)(*tiny), tolerance=5e-3)
