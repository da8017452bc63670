"""Files of a published dataset, fetched over HTTP, each checked against the publisher's SHA-256 list; resumable."""

from __future__ import annotations

import hashlib
import os
import urllib.request
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path, PurePosixPath
from urllib.parse import quote, urlsplit

import urllib3
from rich.console import Console
from rich.progress import track

from tfds_builders.common.cohort import BuildError

SUMS_NAME = "SHA256SUMS.txt"
_ATTEMPTS = 3
_CONNECTIONS = 8
_CHUNK_BYTES = 1 << 16


class Publisher:
    """One dataset's folder on a server such as PhysioNet's, which lists its files in `SHA256SUMS.txt`."""

    def __init__(self, base_url: str, *, timeout_s: float = 30.0) -> None:
        self._base_url = base_url.rstrip("/")
        retries = urllib3.Retry(_ATTEMPTS, backoff_factor=1.0, status_forcelist=(429, 500, 502, 503, 504))
        self._pool = _pool(self._base_url, timeout_s, retries)

    def sums(self, folder: Path) -> dict[str, str]:
        """SHA-256 by file name, as published; a copy stays in `folder`."""
        content = b"".join(self._stream(SUMS_NAME))
        (folder / SUMS_NAME).write_bytes(content)
        pairs = (line.split(maxsplit=1) for line in content.decode("utf-8").splitlines() if line.strip())
        return {name.lstrip("*"): sha256 for sha256, name in pairs}

    def fetch(self, names: Iterable[str], sums: Mapping[str, str], folder: Path, console: Console | None) -> None:
        """Fetches what is not there yet. A file gets its name only when it is whole and its hash right.

        Raises:
          BuildError: if the server cannot be reached, or a file's hash stays wrong.
        """
        missing = [name for name in names if not _inside(folder, name).is_file()]
        with ThreadPoolExecutor(_CONNECTIONS) as threads:
            futures = [threads.submit(self._fetch_one, name, sums[name], _inside(folder, name)) for name in missing]
            try:
                finished = as_completed(futures)
                for future in (
                    finished if console is None else track(finished, "download", total=len(futures), console=console)
                ):
                    future.result()
            finally:
                threads.shutdown(cancel_futures=True)

    def _fetch_one(self, name: str, sha256: str, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.part")
        for _ in range(_ATTEMPTS):
            digest = hashlib.sha256()
            with temporary.open("wb") as file:
                for chunk in self._stream(name):
                    digest.update(chunk)
                    file.write(chunk)
            if digest.hexdigest() == sha256:
                os.replace(temporary, path)
                return
        temporary.unlink()
        raise BuildError(
            f"{self._base_url}/{name}: expected SHA-256 {sha256}, "
            f"received {digest.hexdigest()} in {_ATTEMPTS} attempts. "
            "Something between here and the server changes files; try again from another network"
        )

    def _stream(self, name: str) -> Iterable[bytes]:
        url = f"{self._base_url}/{quote(name)}"
        try:
            with self._pool.request("GET", url, preload_content=False) as response:
                if response.status != 200:
                    raise BuildError(f"{url}: the server answered {response.status} {response.reason}")
                yield from response.stream(_CHUNK_BYTES)
        except urllib3.exceptions.HTTPError as error:
            raise BuildError(
                f"{url} cannot be reached ({type(error).__name__}). Without a network, fetch the dataset elsewhere and "
                "give its folder with --source DIR; with one, the same command goes on where it stopped"
            ) from error


def _pool(base_url: str, timeout_s: float, retries: urllib3.Retry) -> urllib3.PoolManager:
    """Connections that stay open (these datasets are many small files), through a proxy if one is set."""
    parts = urlsplit(base_url)
    proxy = urllib.request.getproxies().get(parts.scheme)
    if proxy and not urllib.request.proxy_bypass(parts.hostname or ""):
        return urllib3.ProxyManager(proxy, maxsize=_CONNECTIONS, timeout=timeout_s, retries=retries)
    return urllib3.PoolManager(maxsize=_CONNECTIONS, timeout=timeout_s, retries=retries)


def _inside(folder: Path, name: str) -> Path:
    """Where a published name lies on disk; a list that names files elsewhere is refused."""
    parts = PurePosixPath(name).parts
    if not parts or ".." in parts or name.startswith("/") or "\\" in name:
        raise BuildError(f"{SUMS_NAME} names {name!r}, which lies outside the dataset's folder")
    return folder.joinpath(*parts)
