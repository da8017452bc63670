"""Downloads from a server of our own: verified, resumed, refused where a hash is wrong, clear without a network."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tfds_builders.common.cohort import BuildError
from tfds_builders.common.download import SUMS_NAME, Publisher
from tfds_builders.ptb_xl.cohort import PtbXl, download
from tfds_builders.ptb_xl.make_dummy_data import write_dummy


class _Handler(SimpleHTTPRequestHandler):
    served: list[str]

    def do_GET(self) -> None:
        self.served.append(self.path)
        super().do_GET()

    def log_message(self, *words: object) -> None:
        pass


class _Server:
    def __init__(self, folder: Path) -> None:
        self.served: list[str] = []
        self.folder = folder
        handler = type("Handler", (_Handler,), {"served": self.served})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder)))
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[_Server]:
    published = tmp_path / "published"
    write_dummy(published, (1, 10))
    for name in ("scp_statements.csv", "LICENSE.txt"):
        (published / name).write_text(name)
    files = sorted(path for path in published.rglob("*") if path.is_file())
    lines = (f"{hashlib.sha256(p.read_bytes()).hexdigest()} {p.relative_to(published).as_posix()}\n" for p in files)
    (published / SUMS_NAME).write_text("".join(lines))
    running = _Server(published)
    yield running
    running.server.shutdown()


def test_one_rate_is_fetched_and_whole(server: _Server, tmp_path: Path) -> None:
    folder = download(tmp_path / "got", 500, url=server.url)
    got = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert {name for name in got if name.startswith("records")} == {
        f"records500/00000/0000{i}_hr.{suffix}" for i in (1, 2) for suffix in ("hea", "dat")
    }
    assert {"ptbxl_database.csv", "scp_statements.csv", "LICENSE.txt", SUMS_NAME} <= got
    assert len(PtbXl(folder).plan().shards) == 2


def test_what_is_there_is_not_fetched_again(server: _Server, tmp_path: Path) -> None:
    folder = download(tmp_path / "got", 500, url=server.url)
    (folder / "records500/00000/00002_hr.dat").unlink()
    server.served.clear()
    download(folder, 500, url=server.url)
    assert server.served == [f"/{SUMS_NAME}", "/records500/00000/00002_hr.dat"]


def test_a_changed_file_is_refused(server: _Server, tmp_path: Path) -> None:
    (server.folder / "ptbxl_database.csv").write_text("something else")
    with pytest.raises(BuildError, match=r"ptbxl_database\.csv: expected SHA-256"):
        download(tmp_path / "got", 500, url=server.url)
    assert not (tmp_path / "got" / "ptbxl_database.csv").exists()


def test_a_list_that_climbs_out_is_refused(server: _Server, tmp_path: Path) -> None:
    publisher = Publisher(server.url)
    for name in ("../evil", "/etc/evil", "a\\b"):
        with pytest.raises(BuildError, match="outside"):
            publisher.fetch([name], {name: "0" * 64}, tmp_path, None)


def test_a_missing_file_is_told(server: _Server, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="404"):
        Publisher(server.url).fetch(["nothing.txt"], {"nothing.txt": "0" * 64}, tmp_path, None)


def test_without_a_network_the_way_out_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tfds_builders.common.download._ATTEMPTS", 0)
    with pytest.raises(BuildError, match="--source DIR"):
        download(tmp_path / "got", 500, url="http://127.0.0.1:9")
