"""Keyed names that stand for original ids wherever something about data above access class `open` is written down.

The key lies in the data directory, beside the cohorts: whoever may read the data can look a name up, and a table that
travels tells nothing. Builders, runs and cards use the same key, so that their tables can be joined.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from pathlib import Path

from ecgclip_jax.spec.errors import UserError

KEY_FILE = ".pseudonym_key"


def pseudonym(key: bytes, cohort: str, kind: str, original: str) -> str:
    """32 hex digits that stand for an id (HMAC-SHA256): equal under one key, meaningless without it."""
    return hmac.new(key, "\x1f".join((cohort, kind, original)).encode(), hashlib.sha256).hexdigest()[:32]


def read_key(data_dir: Path) -> bytes | None:
    """The key of a data directory; None if it has none."""
    path = data_dir / KEY_FILE
    return bytes.fromhex(path.read_text()) if path.is_file() else None


def make_key(data_dir: Path) -> bytes:
    """The key of a data directory, made at its first use; readable by its owner only.

    Raises:
        UserError: it cannot be made, or is empty.
    """
    path = data_dir / KEY_FILE
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(32))
    except FileExistsError:
        pass
    except OSError as error:
        raise UserError(
            f"cannot make the pseudonym key {path} ({error.strerror}); a cohort above access class open needs it: let "
            "its owner put 64 random hex digits there, readable by those who may read the data"
        ) from error
    key = read_key(data_dir)
    if not key:
        raise UserError(f"the pseudonym key {path} is empty; expected 64 hex digits")
    return key
