"""Where a process finds again what it need not make again: designed filters and compiled programs.

All of it lies in one folder per user, `$ECGCLIP_CACHE` or else `ecgclip` in the user's cache folder, and may be deleted
at any time. `ECGCLIP_CACHE=` (empty) keeps nothing. A file that cannot be read is made anew, and a folder that cannot
be written is as good as none: a cache never stops a job.
"""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import MutableMapping
from pathlib import Path

FOLDER_VARIABLE = "ECGCLIP_CACHE"


def cache_folder() -> Path | None:
    """The folder, which need not exist; None if nothing shall be kept."""
    if chosen := os.environ.get(FOLDER_VARIABLE):
        return Path(chosen).expanduser()
    if chosen == "":
        return None
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "ecgclip"


def kept_mib(folder: Path) -> float:
    """Size of all that lies in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 2**20


def keep_programs(environment: MutableMapping[str, str]) -> None:
    """Tells JAX, which is not imported yet, where to keep compiled programs, unless it has been told already.

    Their number has no bound, as is JAX's default: to keep one it locks the folder, which all hosts of a job may share.
    """
    folder = cache_folder()
    if folder is None or "JAX_COMPILATION_CACHE_DIR" in environment:
        return
    programs = folder / f"programs-{_processor()}"
    try:
        programs.mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    environment["JAX_COMPILATION_CACHE_DIR"] = str(programs)


def _processor() -> str:
    """A name for what the processor can do, which JAX does not ask: a home may be shared by machines that differ."""
    described = platform.machine() + platform.processor()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        described += next(line for line in lines if line.lower().startswith(("flags", "features")))
    except (OSError, StopIteration):
        pass  # not Linux: the names alone
    return hashlib.sha256(described.encode()).hexdigest()[:12]
