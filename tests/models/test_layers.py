"""What all layers share."""

from __future__ import annotations

import jax
import numpy as np
from flax import nnx

from ecgclip_jax.models.layers import Rngs


def test_keys_of_parameters_are_those_of_flax() -> None:
    ours, theirs = Rngs(jax.random.key(7)), nnx.Rngs(params=jax.random.key(7))
    for _ in range(3):
        np.testing.assert_array_equal(*(jax.random.key_data(rngs.params()) for rngs in (ours, theirs)))
