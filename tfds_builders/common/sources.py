"""Where a cohort's files come from: a folder the user names, or PhysioNet with its list of hashes."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from tfds_builders.common.cohort import BuildError, CohortFacts
from tfds_builders.common.download import Publisher

_ASK = {
    "open": "anyone may download it there",
    "registered": "it asks for a registration",
    "credentialed": "it asks for credentialed access and a signed agreement; such data is never downloaded from here",
    "private": "it is the property of its hospital",
}


def given_folder(source: Path | None, facts: CohortFacts) -> Path:
    """The folder that the user named.

    Raises:
      BuildError: if none was, or it is no folder; it says where to ask for the data.
    """
    if source is None:
        raise BuildError(
            f"{facts.name} has to be there already: give its folder with --source. It lies at {facts.homepage}; "
            f"{_ASK[facts.access]}. Licence: {facts.licence}"
        )
    if not source.is_dir():
        raise BuildError(f"--source {source} is not a folder")
    return source


def given_or_fetched(
    source: Path | None,
    facts: CohortFacts,
    downloads: Path,
    project: str,
    console: Console | None,
    wanted: tuple[str, ...] = ("",),
) -> Path:
    """The folder that the user named, or PhysioNet's open project, fetched into `downloads`.

    Args:
      project: slug and version, as `ludb/1.0.1`.
      wanted: beginnings of the file names to fetch.

    Raises:
      BuildError: without a network, or if a file's SHA-256 stays wrong.
    """
    if source is not None:
        return given_folder(source, facts)
    downloads.mkdir(parents=True, exist_ok=True)
    publisher = Publisher(f"https://physionet.org/files/{project}")
    sums = publisher.sums(downloads)
    publisher.fetch([name for name in sums if name.startswith(wanted)], sums, downloads, console)
    return downloads
