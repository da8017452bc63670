"""Path rules: first match, full coverage, and a golden table of where parameters lie."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from ecgclip_jax.parallel.mesh import build_mesh
from ecgclip_jax.parallel.rules import RuleError, infer_shardings, leaf_paths, match_rules
from ecgclip_jax.spec.experiment import MeshSpec

SHAPES = {
    "ecg": {
        "stem": {"kernel": jax.ShapeDtypeStruct((7, 12, 64), jnp.float32)},
        "stage4": {"kernel": jax.ShapeDtypeStruct((3, 512, 512), jnp.float32)},
        "wide": {"kernel": jax.ShapeDtypeStruct((512, 2048), jnp.float32)},
    },
    "text": {"word": {"embedding": jax.ShapeDtypeStruct((30001, 128), jnp.float32)}},
    "odd": jax.ShapeDtypeStruct((301, 301), jnp.float32),
}


def specs(mesh: MeshSpec, **rules: object) -> dict[str, P]:
    found = infer_shardings(build_mesh(mesh), SHAPES, **rules)
    return dict(zip(leaf_paths(SHAPES), [s.spec for s in jax.tree.leaves(found)], strict=True))


def test_golden_partition_table() -> None:
    """The largest divisible dimension of what is large; small or indivisible arrays stay whole."""
    assert specs(MeshSpec(fsdp=4)) == {
        "ecg/stage4/kernel": P(None, None, "fsdp"),
        "ecg/stem/kernel": P(),
        "ecg/wide/kernel": P(None, "fsdp"),
        "odd": P(),
        "text/word/embedding": P(None, "fsdp"),
    }


def test_without_fsdp_everything_is_replicated() -> None:
    assert set(specs(MeshSpec()).values()) == {P()}


def test_rules_override_in_order() -> None:
    rules = (("^ecg/wide", P("fsdp")), ("^ecg/", "replicate"), (".*", "fsdp"))
    found = specs(MeshSpec(fsdp=4), rules=rules)
    assert found["ecg/wide/kernel"] == P("fsdp")
    assert found["ecg/stage4/kernel"] == P()
    assert found["text/word/embedding"] == P(None, "fsdp")


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ((("^ecg/", "replicate"),), "no rule covers odd, text/word/embedding"),
        ((("^image/", "replicate"), (".*", "fsdp")), r"'\^image/' is the first match of no parameter"),
        ((("^odd", P("fsdp")), (".*", "fsdp")), "odd of shape .301, 301. does not divide"),
        ((("^odd", P(None, None, "fsdp")), (".*", "fsdp")), "odd of shape .301, 301. has fewer axes"),
    ],
)
def test_rules_that_do_not_fit_are_errors(rules: tuple, message: str) -> None:
    with pytest.raises(RuleError, match=message):
        infer_shardings(build_mesh(MeshSpec(fsdp=4)), SHAPES, rules)


def test_first_match_wins_anywhere_in_the_path() -> None:
    tree = {"a": {"kernel": 1, "bias": 2}, "b": {"bias": 3}}
    found = match_rules([("b/bias", "last"), ("bias", "some"), ("kernel$", "matrix")], tree, what="test")
    assert found == {"a": {"kernel": "matrix", "bias": "some"}, "b": {"bias": "last"}}
