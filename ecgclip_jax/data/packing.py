"""Short texts side by side in rows of fixed length, so that a trained text tower computes on little padding.

Best fit, longest first, over a histogram of free space (arXiv 2107.02027 packs by histogram too). The number of rows is
fixed, so one program serves every batch; what does not fit is cut short, never left out.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from jaxtyping import Bool, Int

from ecgclip_jax.contracts import PackedTexts, TextTokens
from ecgclip_jax.spec.experiment import PACKED_ROW_TOKENS

_SHORTEST = 2
"""[CLS] and [SEP], which are left of any text."""


def packed_rows(n_texts: int, rows_per_text: float) -> int:
    """Rows that `n_texts` get."""
    return -int(-n_texts * rows_per_text // 1)


def pack_texts(texts: TextTokens, packs: int, packs_all: int, rows_per_text: float) -> tuple[PackedTexts, int]:
    """Packs the texts of a batch on the host; also how many had to be cut short.

    Args:
        texts: ids and mask [batch, k, tokens], this process's.
        packs: parts of the batch, one after the other, that are packed by themselves.
        packs_all: what the result's `packs` says: the parts of the global (micro-)batch.
        rows_per_text: see `MemorySpec.packed_rows_per_text`.
    """
    ids, mask = np.asarray(texts.ids), np.asarray(texts.mask)
    batch, k, tokens = ids.shape
    each = batch * k // packs
    parts = [
        _one_pack(part_ids, part_mask, packed_rows(each, rows_per_text))
        for part_ids, part_mask in zip(ids.reshape(packs, each, tokens), mask.reshape(packs, each, tokens), strict=True)
    ]
    packed_ids, text, position = (np.concatenate([part[i] for part in parts]) for i in range(3))
    first = np.concatenate([part[3] for part in parts]).reshape(batch, k)
    arrays = (cast("Any", array) for array in (packed_ids, text, position, first))
    return PackedTexts(*arrays, packs=packs_all), sum(part[4] for part in parts)


def _one_pack(
    ids: Int[np.ndarray, "texts tokens"], mask: Bool[np.ndarray, "texts tokens"], n_rows: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int]:
    """Ids, text and position [rows, 128] and first [texts] of one pack, int32, and how many texts were cut short."""
    lengths = np.maximum(mask.sum(axis=1), 1)
    kept, first = _places(lengths, n_rows)
    owner = np.repeat(np.arange(len(ids)), kept)
    position = np.arange(len(owner)) - np.repeat(np.cumsum(kept) - kept, kept)
    place = first[owner] + position
    # A text that was cut short keeps its last token, which closes it.
    source = np.where(position == kept[owner] - 1, lengths[owner] - 1, position)
    packed = np.zeros((3, n_rows * PACKED_ROW_TOKENS), np.int32)
    packed[1] = -1
    for row, values in enumerate((ids[owner, source], owner, position)):
        packed[row, place] = values
    shaped = packed.reshape(3, n_rows, PACKED_ROW_TOKENS)
    return shaped[0], shaped[1], shaped[2], first.astype(np.int32), int((kept < lengths).sum())


def _places(lengths: Int[np.ndarray, " texts"], n_rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Tokens kept of each text and where it begins; the longest texts are cut to the largest length that fits."""
    shortest, longest = _SHORTEST, int(min(lengths.max(), PACKED_ROW_TOKENS))
    found = _fit(np.minimum(lengths, longest), n_rows)
    if found is not None:
        return np.minimum(lengths, longest), found
    while longest - shortest > 1:
        middle = (shortest + longest) // 2
        if _fit(np.minimum(lengths, middle), n_rows) is None:
            longest = middle
        else:
            shortest = middle
    kept = np.minimum(lengths, shortest)
    found = _fit(kept, n_rows)
    assert found is not None, "a row takes 64 texts of the shortest length"
    return kept, found


def _fit(lengths: Int[np.ndarray, " texts"], n_rows: int) -> np.ndarray | None:
    """Where each text begins by best fit, longest first; None if they do not all fit."""
    first = np.empty(len(lengths), np.int64)
    with_space: list[list[int]] = [[] for _ in range(PACKED_ROW_TOKENS + 1)]
    with_space[PACKED_ROW_TOKENS] = list(range(n_rows))
    there = 1 << PACKED_ROW_TOKENS  # bit s: some row has s tokens of free space
    for text in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[text])
        enough = there >> length
        if not enough:
            return None
        space = length + (enough & -enough).bit_length() - 1
        row = with_space[space].pop()
        if not with_space[space]:
            there &= ~(1 << space)
        first[text] = row * PACKED_ROW_TOKENS + PACKED_ROW_TOKENS - space
        if space > length:
            with_space[space - length].append(row)
            there |= 1 << (space - length)
    return first
