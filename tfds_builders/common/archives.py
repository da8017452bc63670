"""Archives from the network, unpacked without trust: nothing outside the folder, nothing larger than it may be."""

from __future__ import annotations

import os
import shutil
import stat
import zipfile
from collections.abc import Collection
from pathlib import Path, PurePosixPath
from typing import Final

from tfds_builders.common.cohort import BuildError

MAX_UNPACKED_BYTES: Final = 200 * 2**30
"""More than any part of a public ECG cohort; HEEDB and MIMIC-IV-ECG come as single files."""
MAX_COMPRESSION: Final = 1000
"""Deflate reaches 1,032 on zeros, about 3 on ECGs: an archive that promises more than this as a whole is a bomb."""
MAX_MEMBERS: Final = 5_000_000


def unpack_zip(archive: Path, folder: Path, names: Collection[str] | None = None) -> list[Path]:
    """Unpacks a zip below `folder`; a member that is there in its full size is left as it is.

    Every member is checked before the first is written. A member gets its name only when it is whole (its CRC fits).

    Args:
        archive: the zip file.
        folder: where its members go.
        names: members to take; None takes all files.

    Returns:
        Paths of the files, in the archive's order.

    Raises:
        BuildError: no zip, damaged, a wanted member that is missing, or one that is a link, is encrypted, leads out of
            `folder` or promises more than can be.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            members = _checked(archive, opened, names)
            return [_write(opened, member, _target(archive, folder, member.filename)) for member in members]
    except (zipfile.BadZipFile, EOFError, NotImplementedError, OSError) as error:
        raise BuildError(
            f"{archive.name} cannot be unpacked ({type(error).__name__}: {error}); download it again, or make room"
        ) from error


def _checked(archive: Path, opened: zipfile.ZipFile, names: Collection[str] | None) -> list[zipfile.ZipInfo]:
    files = [member for member in opened.infolist() if not member.is_dir()]
    if names is not None:
        if missing := set(names) - {member.filename for member in files}:
            raise BuildError(f"{archive.name}: expected {', '.join(sorted(missing)[:5])}, found nothing of that name")
        files = [member for member in files if member.filename in names]
    if len(files) > MAX_MEMBERS:
        raise BuildError(f"{archive.name}: expected at most {MAX_MEMBERS:,} files, found {len(files):,}")
    for member in files:
        _target(archive, archive.parent, member.filename)
        if stat.S_ISLNK(member.external_attr >> 16) or member.flag_bits & 1:
            raise BuildError(
                f"{archive.name}: {member.filename!r} is a link or encrypted, which no published cohort needs"
            )
    promised = sum(member.file_size for member in files)
    if promised > min(MAX_UNPACKED_BYTES, max(archive.stat().st_size, 2**20) * MAX_COMPRESSION):
        raise BuildError(
            f"{archive.name}: {archive.stat().st_size:,} bytes promise {promised:,} when unpacked; no ECG archive does"
        )
    return files


def _target(archive: Path, folder: Path, name: str) -> Path:
    parts = PurePosixPath(name).parts
    if not parts or ".." in parts or name.startswith("/") or "\\" in name or ":" in parts[0] or "\x00" in name:
        raise BuildError(f"{archive.name} names {name!r}, which lies outside the folder it is unpacked into")
    target = folder.joinpath(*parts)
    real = os.path.realpath(target)  # a link that an earlier unpacking or someone else left there
    if not real.startswith(os.path.realpath(folder) + os.sep):
        raise BuildError(f"{archive.name}: {name!r} would be written through a link to {real}")
    return target


def _write(opened: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> Path:
    if target.is_file() and target.stat().st_size == member.file_size:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f"{target.name}.part")
    with opened.open(member) as packed, temporary.open("wb") as file:
        # zipfile itself stops at the promised size and compares the CRC there.
        shutil.copyfileobj(packed, file, 1 << 20)
    os.replace(temporary, target)
    return target
