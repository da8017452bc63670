"""Arrays that one process makes and later ones find (`spec.local_cache`). Nothing is ever unpickled."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable
from contextlib import suppress

import numpy as np

from ecgclip_jax.spec.local_cache import cache_folder
from ecgclip_jax.spec.whole_file import whole_file


def kept_arrays(kind: str, made_from: bytes, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """`make()`, or what an earlier process of any kind made from the same.

    Args:
        kind: Names the folder within the cache.
        made_from: All that the arrays depend on: settings, versions, source code.
        make: Makes arrays by name, of numbers only.
    """
    folder = cache_folder()
    if folder is None:
        return make()
    path = folder / kind / f"{hashlib.sha256(made_from).hexdigest()[:32]}.npz"
    # Whatever is wrong with the file, two processes that wrote it at once included, its checksums tell.
    try:
        with np.load(path, allow_pickle=False) as found:
            return dict(found)
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
        arrays = make()
    with suppress(OSError), whole_file(path) as part, part.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
    return arrays
