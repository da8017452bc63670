"""The global order alone: pure, complete, weighted, and frozen by a golden value."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from ecgclip_jax.data.order import GlobalOrder, draws_per_epoch, permutation


def test_permutations_are_permutations_and_depend_on_every_number() -> None:
    first = permutation(1000, 1, 2, 3)
    assert sorted(first.tolist()) == list(range(1000))
    np.testing.assert_array_equal(first, permutation(1000, 1, 2, 3))
    for other in [(0, 2, 3), (1, 0, 3), (1, 2, 0)]:
        assert (permutation(1000, *other) == first).mean() < 0.05


def test_the_order_is_frozen() -> None:
    """A changed value here means that runs begun before would go on with other batches."""
    order = GlobalOrder(seed=3, sizes=(5, 4), weights=(1.0, 2.0), batch_global=3)
    assert [order.rows(step).tolist() for step in range(4)] == GOLDEN


GOLDEN = [[1, 5, 6], [7, 5, 0], [6, 8, 3], [7, 8, 4]]


@pytest.mark.parametrize(
    ("sizes", "weights", "draws"),
    [
        ((50,), (3.0,), (50,)),
        ((50, 20), (1.0, 1.0), (50, 20)),
        ((50, 20), (0.3, 0.3), (50, 20)),
        ((30, 30), (1.0, 2.0), (20, 40)),
        ((50, 20), (1.0, 2.0), (39, 31)),  # 70 * (50, 40) / 90 = 38.9, 31.1
        ((1, 1, 1), (1.0, 1.0, 1.0), (1, 1, 1)),
    ],
)
def test_draws_by_hand(sizes: tuple[int, ...], weights: tuple[float, ...], draws: tuple[int, ...]) -> None:
    assert draws_per_epoch(sizes, weights) == draws
    assert sum(draws) == sum(sizes)


def test_weights_hold_in_every_epoch_and_spread_over_all_records() -> None:
    order = GlobalOrder(seed=0, sizes=(30, 30), weights=(1.0, 2.0), batch_global=6)
    drawn: Counter[int] = Counter()
    for epoch in range(6):
        rows = np.concatenate([order.rows(10 * epoch + s) for s in range(10)])
        assert ((rows < 30).sum(), (rows >= 30).sum()) == (20, 40)
        drawn.update(rows.tolist())
    assert {drawn[row] for row in range(30)} == {4}, "6 epochs x 20 draws over 30 records"
    assert {drawn[row] for row in range(30, 60)} == {8}


def test_an_epoch_of_equal_weights_holds_every_record_once() -> None:
    order = GlobalOrder(seed=5, sizes=(7, 5), weights=(1.0, 1.0), batch_global=4)
    epochs = [np.concatenate([order.rows(3 * e + s) for s in range(3)]).tolist() for e in range(2)]
    assert [sorted(rows) for rows in epochs] == [list(range(12))] * 2
    assert epochs[0] != epochs[1]
    assert GlobalOrder(6, (7, 5), (1.0, 1.0), 4).rows(0).tolist() != order.rows(0).tolist()
