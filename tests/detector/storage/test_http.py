"""Single files from a server that breaks off, ignores ranges, refuses, and lies about lengths."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from detector.errors import DataError
from detector.storage.http import fetch
from tests.faulty_server import Server, serve

CONTENT = bytes(range(256)) * 40
FILE = "/file"
HALF = len(CONTENT) // 2


@pytest.fixture
def server() -> Iterator[Server]:
    with serve() as server:
        server.files[FILE] = CONTENT
        yield server


def get(server: Server, target: Path, *, retries: int = 2, timeout: float = 5.0, **options: Any) -> None:
    fetch(server.url + FILE, target, retries=retries, timeout=timeout, wait=0.0, **options)


@pytest.mark.parametrize(
    ("faults", "ranges"),
    [
        ([], [None]),
        (["503"], [None, None]),
        (["429", "500"], [None, None, None]),
        (["break"], [None, f"bytes={HALF}-"]),
        (["break", "break"], [None, f"bytes={HALF}-", f"bytes={HALF + HALF // 2}-"]),
        (["break", "ignore range"], [None, f"bytes={HALF}-"]),
        (["break", "503"], [None, f"bytes={HALF}-", f"bytes={HALF}-"]),
        (["break", "wrong range"], [None, f"bytes={HALF}-", f"bytes={HALF}-"]),
        (["too long"], [None, f"bytes={len(CONTENT)}-"]),
        (["no length"], [None, None]),
    ],
    ids=lambda value: ",".join(map(str, value)) or "no fault",
)
def test_fetch_gets_the_file_whatever_goes_wrong_once(
    server: Server, tmp_path: Path, faults: list[str], ranges: list[str | None]
) -> None:
    server.faults[FILE] = list(faults)
    get(server, tmp_path / "deep" / "file")
    assert (tmp_path / "deep" / "file").read_bytes() == CONTENT
    assert server.ranges(FILE) == ranges
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["file"]


def test_fetch_goes_on_where_an_earlier_call_stopped(server: Server, tmp_path: Path) -> None:
    server.faults[FILE] = ["break"]
    with pytest.raises(
        DataError, match=rf"in 1 attempts: the connection ended after {HALF:,} of {len(CONTENT):,} bytes"
    ):
        get(server, tmp_path / "file", retries=0)
    assert not (tmp_path / "file").exists()
    seen: list[tuple[int, int]] = []
    get(server, tmp_path / "file", progress=lambda done, total: seen.append((done, total)))
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.ranges(FILE) == [None, f"bytes={HALF}-"]
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert all(done > HALF for done, _ in seen)


@pytest.mark.parametrize("left", [CONTENT + b"more", CONTENT])
def test_fetch_starts_over_only_where_the_part_does_not_fit(server: Server, tmp_path: Path, left: bytes) -> None:
    (tmp_path / "file.part").write_bytes(left)
    get(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.ranges(FILE) == ([f"bytes={len(left)}-"] if left == CONTENT else [f"bytes={len(left)}-", None])


def test_fetch_removes_a_file_that_its_check_refuses(server: Server, tmp_path: Path) -> None:
    seen = list[bytes]()

    def check(arrived: Path) -> str | None:
        assert not (tmp_path / "file").exists()
        seen.append(arrived.read_bytes())
        return "another file" if len(seen) == 1 else None

    with pytest.raises(DataError, match=rf"{server.url}{FILE}: another file\. Run this again"):
        get(server, tmp_path / "file", check=check)
    assert list(tmp_path.iterdir()) == []
    get(server, tmp_path / "file", check=check)
    assert seen == [CONTENT, CONTENT]
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_fetch_gives_up_after_its_retries(server: Server, tmp_path: Path) -> None:
    server.faults[FILE] = ["503"] * 9
    with pytest.raises(DataError, match=r"in 3 attempts: the server answers 503 Service Unavailable"):
        get(server, tmp_path / "file")
    assert len(server.requests) == 3


def test_fetch_never_accepts_a_wrong_length(server: Server, tmp_path: Path) -> None:
    server.faults[FILE] = ["no length"] * 9
    with pytest.raises(DataError, match="does not tell the file's length"):
        get(server, tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


def test_fetch_tries_no_second_time_what_is_not_there(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing: the server answers 404 Not Found"):
        fetch(server.url + "/nothing", tmp_path / "file", retries=5, timeout=5, wait=0.0)
    assert len(server.requests) == 1


def test_fetch_ends_a_silent_connection(server: Server, tmp_path: Path) -> None:
    server.faults[FILE] = ["hang"]
    get(server, tmp_path / "file", timeout=0.2)
    assert not server.released.is_set()
    server.released.set()
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.ranges(FILE) == [None, f"bytes={HALF}-"]


def test_fetch_reports_a_server_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"in 2 attempts: .*[Cc]onnection refused"):
        fetch("http://127.0.0.1:9/file", tmp_path / "file", retries=1, timeout=5, wait=0.0)


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://host/file", ""])
def test_fetch_refuses_other_protocols(tmp_path: Path, url: str) -> None:
    with pytest.raises(DataError, match="only http and https"):
        fetch(url, tmp_path / "file", retries=0, timeout=5)
