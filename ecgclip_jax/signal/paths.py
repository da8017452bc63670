"""The only way a reader opens a file: inside the source's folder, a regular file, of a size it is ready for."""

from __future__ import annotations

import os
import stat
from typing import Final

from ecgclip_jax.signal.record import ECGReadError, ReasonCode

MAX_SIGNAL_BYTES: Final = 4 * 2**30
"""A day of 12 leads at 1000 Hz in 16 bits is 2.1 GB; what is larger is no ECG (a sparse file costs nothing to fake)."""
MAX_HEADER_BYTES: Final = 2**20
"""PTB's long clinical headers have 3 kB."""

_OPEN_FLAGS: Final = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
"""Not blocking: opening a named pipe would wait for a writer for ever."""


def _outside(path: str, root: str, real: str) -> ECGReadError:
    return ECGReadError.because(
        ReasonCode.path_outside_source,
        path,
        expected=f"a file inside {root}",
        found=f"one that leads to {real}",
        remedy="Pass root= the folder that holds the whole source if this is meant; if not, do not trust it.",
    )


def resolve_inside(path: str, root: str) -> str:
    """The real path of `path`, symlinks followed.

    Args:
        path: file or folder.
        root: folder it must lie in, already resolved.

    Raises:
        ECGReadError: `path_outside_source`.
    """
    real = os.path.realpath(path)
    if real != root and not real.startswith(root.rstrip(os.sep) + os.sep):
        raise _outside(path, root, real)
    return real


def record_folder(path: str | os.PathLike[str], root: str | os.PathLike[str] | None) -> tuple[str, str, str]:
    """Splits a record's path into its resolved folder, its file name, and the resolved root (the folder by default).

    Raises:
        ECGReadError: `path_outside_source`.
    """
    head, name = os.path.split(os.fspath(path))
    try:
        if root is None:
            folder = os.path.realpath(head or ".")
            return folder, name, folder
        given_root = os.fspath(root)
        real_root = os.path.realpath(given_root)
        folder = _plainly_below(head, given_root, real_root) or resolve_inside(os.path.realpath(head or "."), real_root)
        return folder, name, real_root
    except (OSError, ValueError) as error:
        if isinstance(error, ECGReadError):
            raise
        raise unreadable(os.fspath(path), error) from None


def _plainly_below(folder: str, root: str, real_root: str) -> str | None:
    """The real path of a folder that is spelt as the root and plain names below it, none a link; None for others.

    It is what resolving finds, without looking at every part of the root again for every record of it.
    """
    below = folder.removeprefix(root.rstrip(os.sep) + os.sep)
    if below == folder or os.altsep:
        return None
    real = real_root.rstrip(os.sep)
    try:
        for part in below.split(os.sep):
            real = f"{real}{os.sep}{part}"
            if part in ("", ".", "..") or not stat.S_ISDIR(os.lstat(real).st_mode):
                return None
    except FileNotFoundError:
        return None
    return real


def member(folder: str, name: str, root: str) -> str:
    """The real path of the file that a header in `folder` calls `name`.

    Args:
        folder: resolved folder of the header, known to lie in `root`.
        name: as the header spells it.
        root: resolved folder nothing may leave.

    Raises:
        ECGReadError: `path_outside_source`, `missing_file`.
    """
    path = os.path.join(folder, name)
    try:
        # A plain name that is no link cannot leave a folder that lies inside; the others are resolved and compared.
        plain = os.sep not in name and "/" not in name and "\\" not in name and name not in ("", ".", "..")
        if plain and not stat.S_ISLNK(os.lstat(path).st_mode):
            return path
        return resolve_inside(path, root)
    except FileNotFoundError:
        raise missing(path) from None
    except (OSError, ValueError) as error:  # a name too long for the system, or with a NUL in it
        if isinstance(error, ECGReadError):
            raise
        raise unreadable(path, error) from None


def read_regular_file(path: str, *, max_bytes: int, expected_bytes: int | None = None) -> bytes:
    """All bytes of a regular file; nothing is allocated before its true size is known.

    Args:
        path: resolved path.
        max_bytes: refuses larger files.
        expected_bytes: refuses (unread) a file of any other size, as `truncated` or `header_lies`.

    Raises:
        ECGReadError: `missing_file`, `empty`, `truncated`, `header_lies`, `unreadable`.
    """
    try:
        descriptor = os.open(path, _OPEN_FLAGS)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise unreadable(path, "not a regular file")
            _check_size(path, status.st_size, max_bytes, expected_bytes)
            content = os.read(descriptor, status.st_size)
            if len(content) == status.st_size:
                return content
            with open(descriptor, "rb", buffering=0, closefd=False) as file:  # more than one call reads
                return content + file.readall()
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise missing(path) from None
    except (OSError, ValueError) as error:
        if isinstance(error, ECGReadError):
            raise
        raise unreadable(path, error) from None


def regular_file_size(path: str) -> int:
    """Bytes of a regular file, for libraries that open it themselves (a named pipe would hold them for ever).

    Raises:
        ECGReadError: `missing_file`, `unreadable`.
    """
    try:
        status = os.stat(path)
    except FileNotFoundError:
        raise missing(path) from None
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from None
    if not stat.S_ISREG(status.st_mode):
        raise unreadable(path, "not a regular file")
    return status.st_size


def _check_size(path: str, size: int, max_bytes: int, expected_bytes: int | None) -> None:
    if size == 0:
        raise ECGReadError.because(
            ReasonCode.empty, path, expected="a file with content", found="0 bytes", remedy="Download it again."
        )
    if expected_bytes is not None and size != expected_bytes:
        short = size < expected_bytes
        raise ECGReadError.because(
            ReasonCode.truncated if short else ReasonCode.header_lies,
            path,
            expected=f"{expected_bytes:,} bytes by its header",
            found=f"{size:,}",
            remedy="Download it again."
            if short
            else "Header and signal file belong to different records, or leads are missing in the header.",
        )
    if size > max_bytes:
        raise unreadable(path, f"{size:,} bytes, more than the {max_bytes:,} a file of this kind can have")


def missing(path: str) -> ECGReadError:
    """The error for a file that is not there."""
    return ECGReadError.because(
        ReasonCode.missing_file,
        path,
        expected="this file",
        found="none of this name",
        remedy="Complete the download, or leave the record out.",
    )


def unreadable(path: str, cause: object) -> ECGReadError:
    """The error for a file that the system or a library cannot read."""
    return ECGReadError.because(
        ReasonCode.unreadable,
        path,
        expected="a readable file",
        found=str(cause) or type(cause).__name__,
        remedy="Check the file and its permissions, or leave the record out.",
    )
