"""Single files from a server that breaks off, ignores ranges, refuses, and lies about lengths."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from detector.errors import DataError, UsageError
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


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("data:text/plain,x", "only http and https"),
        ("HTTP:///file", "names no host"),
        ("http://user:secret@host/file", "user name or password"),
        ("http://host/a file", "spaces or control characters"),
        ("http://host/a\r\nX: y", "spaces or control characters"),
        ("http://host/\N{LATIN SMALL LETTER E WITH ACUTE}", "must be written as %XX"),
        ("http://host:99999/", "Port out of range"),
        ("http://host:port/", "Port could not be cast"),
        ("http://[::1/", "Invalid IPv6"),
        (f"http://{'a' * 64}.org/", "its host is no valid name"),
        ("http://a..b/", "its host is no valid name"),
    ],
)
def test_fetch_refuses_odd_addresses_before_it_asks(tmp_path: Path, url: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        fetch(url, tmp_path / "new" / "file", retries=9, timeout=5, wait=99.0)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("file:///etc/hostname", "302 .*Redirection to url .* is not allowed"),
        ("data:text/plain,x", "302 .*Redirection to url .* is not allowed"),
        ("ftp://127.0.0.1/file", "redirects to 'ftp://127.0.0.1/file': only http and https"),
        ("http://user:secret@127.0.0.1/file", "user name or password"),
        ("/loop", "302 .*infinite loop"),
    ],
)
def test_fetch_follows_no_redirect_out_of_http_or_in_circles(
    server: Server, tmp_path: Path, target: str, message: str
) -> None:
    server.faults[FILE] = [f"to {target}"]
    server.faults["/loop"] = ["to /loop"] * 99
    with pytest.raises(DataError, match=message) as caught:
        get(server, tmp_path / "file", retries=9)
    assert "\n" not in str(caught.value)
    assert [path for path, _ in server.requests if path == FILE] == [FILE]
    assert len(server.requests) < 10
    assert list(tmp_path.iterdir()) == []


def test_fetch_follows_a_redirect_to_http(server: Server, tmp_path: Path) -> None:
    server.files["/there"] = CONTENT
    server.faults[FILE] = ["to /there"]
    get(server, tmp_path / "file", retries=0)
    assert (tmp_path / "file").read_bytes() == CONTENT


@pytest.mark.parametrize("length", ["-1", "9" * 5000, "1e3", "\N{SUPERSCRIPT TWO}", "0x10", ""])
def test_fetch_takes_no_odd_length(server: Server, tmp_path: Path, length: str) -> None:
    server.faults[FILE] = [f"length {length}"] * 9
    with pytest.raises(DataError, match="does not tell the file's length"):
        get(server, tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


def test_fetch_does_not_begin_what_the_disk_cannot_hold(server: Server, tmp_path: Path) -> None:
    server.faults[FILE] = [f"length {10**14}"] * 9
    with pytest.raises(DataError, match=r"has 100,000,000,000,000 bytes to come; the disk of .* has [\d,]+ left"):
        get(server, tmp_path / "file")
    assert len(server.requests) == 1
    assert list(tmp_path.iterdir()) == []


def test_fetch_does_not_ask_again_where_the_disk_is_full(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Path.open

    def full(path: Path, *arguments: Any, **options: Any) -> Any:
        if path.name.endswith(".part"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return original(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(DataError, match=r"file\.part cannot be written: No space left on device"):
        get(server, tmp_path / "file", retries=9)
    assert len(server.requests) == 1


def test_fetch_writes_through_no_link(server: Server, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_bytes(b"mine")
    for name in ("file", "file.part"):
        (tmp_path / name).symlink_to(own)
        with pytest.raises(UsageError, match="is a link and is not replaced"):
            get(server, tmp_path / "file")
        (tmp_path / name).unlink()
    assert own.read_bytes() == b"mine"
