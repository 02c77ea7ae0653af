"""Downloads a file over HTTP; after a broken connection it goes on where it was."""

from __future__ import annotations

import http.client
import logging
import re
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from detector.errors import DataError
from detector.storage.outputs import holds_file

logger = logging.getLogger(__name__)

CHUNK = 1 << 20
MAX_WAIT = 60.0
TEMPORARY = {408, 429, 500, 502, 503, 504}  # HTTP codes that are worth another attempt

Progress = Callable[[int, int], None]


LENGTH = r"[0-9]{1,15}"  # of a file, in an answer


class _Interrupted(Exception):
    """An attempt ended early; what has arrived is kept."""


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to http and https only; Python's own follows them to ftp too."""

    max_redirections = 5
    max_repeats = 2

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        """For urllib, at each redirect."""
        try:
            check_url(newurl, f"{req.full_url} redirects to ")
        except DataError:
            fp.close()
            raise
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    """Of http and https; file:, ftp: and data: have no handler in it."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler({kind: url for kind, url in urllib.request.getproxies().items() if kind != "ftp"}),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        _Redirects(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener


def check_url(url: str, before: str = "") -> None:
    """Raise DataError for an address that is not fetched: not http or https, or with odd parts.

    before: what led to it, for the message.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        port_is_number = parts.port != 0
        wrong = (
            "only http and https addresses are fetched" * (parts.scheme not in ("http", "https"))
            or "it has spaces or control characters" * (not url.isprintable() or " " in url)
            or "it has other than ASCII characters, which must be written as %XX" * (not url.isascii())
            or "it names no host" * (not parts.hostname)
            or "it has a user name or password" * ("@" in parts.netloc)
            or "its port is 0" * (not port_is_number)
            or "its host is no valid name" * any(not 0 < len(part) < 64 for part in _labels(parts.hostname))
        )
    except ValueError as error:
        wrong = str(error)
    if wrong:
        raise DataError(f"Cannot download {before}{url!r}: {wrong}.")


def _labels(host: str | None) -> list[str]:
    """The parts of a host's name; an address of IPv6 has none."""
    return [] if host is None or ":" in host else host.removesuffix(".").split(".")


def fetch(
    url: str,
    target: Path,
    *,
    retries: int,
    timeout: float,
    wait: float = 1.0,
    progress: Progress | None = None,
    check: Callable[[Path], str | None] | None = None,
) -> None:
    """Download ``url`` to ``target``, which appears when it has the length that the server announced.

    What has arrived lies in ``target``.part, from where the next attempt, or the next call, goes on. ``timeout``:
    seconds without a byte; ``wait``: seconds before the second attempt, doubled with each; ``progress``: called with
    the bytes that are there and their final number. ``check`` says what is wrong with the whole file, or None; it is
    asked before ``target`` appears, and a file that is wrong is removed.

    Raises DataError when ``retries`` further attempts fail too, at once for an answer that will not change, such as
    404, for an address that is not fetched, for what this machine refuses (a full disk, a folder that may not be
    written), and for a file that is wrong.
    """
    check_url(url)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    for path in (target, part):
        holds_file(path)
    for attempt in range(retries + 1):
        try:
            _attempt(url, part, timeout, progress)
        except urllib.error.HTTPError as error:
            if error.code not in TEMPORARY:
                raise DataError(f"{url}: the server answers {_status(error)}.") from error
            reason = f"the server answers {_status(error)}"
        except (_Interrupted, OSError, http.client.HTTPException) as error:
            reason = str(error) or type(error).__name__
        else:
            if check is not None and (wrong := check(part)) is not None:
                part.unlink()
                raise DataError(f"{url}: {wrong}. Run this again, or check the address.")
            part.replace(target)
            return
        if attempt < retries:
            logger.info("%s: %s; attempt %d of %d follows", url, reason, attempt + 2, retries + 1)
            time.sleep(min(MAX_WAIT, wait * 2**attempt))
    raise DataError(f"Cannot download {url} in {retries + 1} attempts: {reason}.")


def _status(error: urllib.error.HTTPError) -> str:
    """Code and reason; of a redirect in circles Python's reason has several lines."""
    return f"{error.code} {str(error.reason).splitlines()[0] if str(error.reason).strip() else ''}".strip()


def _attempt(url: str, part: Path, timeout: float, progress: Progress | None) -> None:
    """Download what ``part`` lacks of the file. Raises _Interrupted where it is not complete afterwards."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = _opener().open(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        with error:
            if error.code != 416:
                raise
            # Nothing lies beyond what is there: it is the whole file, or not a part of it.
            if re.fullmatch(rf"bytes \*/{have}", error.headers.get("Content-Range", "")):
                return
        part.unlink()
        raise _Interrupted("what was there did not fit the file, starting over") from error
    with response:
        start, total = _extent(response)
        if start not in (0, have):
            raise _Interrupted(f"the server sends bytes from {start:,} on, not from {have:,}")
        have = start  # a server that ignores the range sends all of it
        _check_room(url, part, total - have)
        with _local(part), part.open("r+b" if start else "wb") as file:
            file.seek(start)
            while chunk := _received(response):
                have += len(chunk)
                if have > total:
                    part.unlink()
                    raise DataError(f"{url}: the server sends more than the {total:,} bytes that it announced.")
                file.write(chunk)
                if progress is not None:
                    progress(have, total)
    if have != total:
        raise _Interrupted(f"the connection ended after {have:,} of {total:,} bytes")


def _received(response: http.client.HTTPResponse) -> bytes:
    """What has arrived: a connection that falls silent loses no half chunk."""
    try:
        return response.read1(CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise _Interrupted(str(error) or type(error).__name__) from error


@contextmanager
def _local(part: Path) -> Iterator[None]:
    """An error of this machine's disk is raised as DataError: another attempt would meet it again."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{part} cannot be written: {error.strerror or error}.") from error


def _check_room(url: str, part: Path, wanted: int) -> None:
    """Raise DataError where the disk lacks room for what is announced: better now than after hours."""
    with _local(part):
        free = shutil.disk_usage(part.parent).free
    if wanted > free:
        raise DataError(f"{url} has {wanted:,} bytes to come; the disk of {part.parent} has {free:,} left.")


def _extent(response: http.client.HTTPResponse) -> tuple[int, int]:
    """First byte that the answer sends, and the length of the whole file."""
    if response.status == 206:
        found = re.fullmatch(rf"bytes ({LENGTH})-{LENGTH}/({LENGTH})", response.headers.get("Content-Range", ""))
        if found is None:
            raise _Interrupted(f"no valid Content-Range: {response.headers.get('Content-Range')!r}")
        return int(found[1]), int(found[2])
    length = response.headers.get("Content-Length", "")
    if not re.fullmatch(LENGTH, length):
        raise _Interrupted("the server does not tell the file's length")
    return 0, int(length)
