"""`tf.train.Example` as protobuf writes it: a small, frozen format, put together here from bytes.

Importing TFDS for its message classes takes every worker of a build a second, and filling one takes as long as reading
a record. Layout (https://protobuf.dev/programming-guides/encoding/): an example holds one field, its features, which
are a map from a name to a bytes list (field 1), a float list (2) or an int64 list (3); numbers are packed.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Final

Feature = tuple[bytes, bytes | memoryview]
"""What stands before a feature's content, and the content: a waveform is copied once, into the example."""
Entry = tuple[bytes, bytes | memoryview]
"""The same with the feature's name: what an example is a row of."""
_FIELD_1, _FIELD_2, _FIELD_3 = b"\x0a", b"\x12", b"\x1a"
"""A field of known length: its number × 8 + 2."""
_SHORT: Final = tuple(bytes((n,)) for n in range(128))
_LARGEST_FLOAT32: Final = struct.unpack("<f", b"\xff\xff\x7f\x7f")[0]


def bytes_feature(values: Iterable[bytes]) -> Feature:
    """A list of bytes."""
    content = b"".join([_FIELD_1 + _varint(len(value)) + value for value in values])
    return _FIELD_1 + _varint(len(content)), content


def blob_feature(value: memoryview) -> Feature:
    """A list of one piece of bytes, taken as it lies in memory."""
    inner = _FIELD_1 + _varint(value.nbytes)
    return _FIELD_1 + _varint(len(inner) + value.nbytes) + inner, value.cast("B")


def float_feature(values: Sequence[float]) -> Feature:
    """A list of float32; what is too large for one is infinite."""
    try:
        packed = struct.pack(f"<{len(values)}f", *values)
    except OverflowError:
        fitting = [v if abs(v) <= _LARGEST_FLOAT32 else math.copysign(math.inf, v) for v in values]
        packed = struct.pack(f"<{len(values)}f", *fitting)
    return _packed(_FIELD_2, packed)


def int64_feature(values: Iterable[int]) -> Feature:
    """A list of int64."""
    return _packed(_FIELD_3, b"".join([_varint(value) for value in values]))


def _packed(kind: bytes, content: bytes) -> Feature:
    inner = _FIELD_1 + _varint(len(content)) if content else b""
    return kind + _varint(len(inner) + len(content)) + inner, content


def _varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first; a negative number as its two's complement of 64 bits."""
    if 0 <= number < 128:
        return _SHORT[number]
    number &= 2**64 - 1
    encoded = bytearray()
    while number > 127:
        encoded.append(number & 127 | 128)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def map_key(name: str) -> bytes:
    """How the entry of a feature begins in the map."""
    key = name.encode()
    return _FIELD_1 + _varint(len(key)) + key + _FIELD_2


def entry(key: bytes, feature: Feature) -> Entry:
    """A feature under its `map_key`."""
    head, content = feature
    length = _varint(len(head) + len(content))
    whole = _varint(len(key) + len(length) + len(head) + len(content))
    return b"".join((_FIELD_1, whole, key, length, head)), content


def example(entries: Iterable[Entry]) -> bytes:
    """The example of such entries."""
    pieces = [*chain.from_iterable(entries)]
    return b"".join((_FIELD_1, _varint(sum(map(len, pieces))), *pieces))


def without_blobs(entries: Iterable[Entry]) -> bytes:
    """All that such entries say, but for the content of blobs."""
    return b"".join([piece for piece in chain.from_iterable(entries) if isinstance(piece, bytes)])


def protobuf_order(name: str) -> bytes:
    """Sorts names as protobuf's deterministic serialiser does: by bytes, a name before what it begins with."""
    return name.encode() + b"\xff"
