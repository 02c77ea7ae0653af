"""Downloads a file over HTTP; after a broken connection it goes on where it was."""

from __future__ import annotations

import http.client
import logging
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from detector.errors import DataError

logger = logging.getLogger(__name__)

CHUNK = 1 << 20
MAX_WAIT = 60.0
TEMPORARY = {408, 429, 500, 502, 503, 504}  # HTTP codes that are worth another attempt

Progress = Callable[[int, int], None]


class _Interrupted(Exception):
    """An attempt ended early; what has arrived is kept."""


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
    404, and for a file that is wrong.
    """
    if not url.startswith(("http://", "https://")):
        raise DataError(f"Cannot download '{url}': only http and https addresses are fetched.")
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    for attempt in range(retries + 1):
        try:
            _attempt(url, part, timeout, progress)
        except urllib.error.HTTPError as error:
            if error.code not in TEMPORARY:
                raise DataError(f"{url}: the server answers {error.code} {error.reason}.") from error
            reason = f"the server answers {error.code} {error.reason}"
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


def _attempt(url: str, part: Path, timeout: float, progress: Progress | None) -> None:
    """Download what ``part`` lacks of the file. Raises _Interrupted where it is not complete afterwards."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=timeout)
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
        with part.open("r+b" if start else "wb") as file:
            file.seek(start)
            while chunk := response.read1(CHUNK):  # what has arrived: one that falls silent loses no half chunk
                file.write(chunk)
                have += len(chunk)
                if progress is not None:
                    progress(have, total)
    if have != total:
        raise _Interrupted(f"the connection ended after {have:,} of {total:,} bytes")


def _extent(response: http.client.HTTPResponse) -> tuple[int, int]:
    """First byte that the answer sends, and the length of the whole file."""
    if response.status == 206:
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
        if found is None:
            raise _Interrupted(f"no valid Content-Range: {response.headers.get('Content-Range')!r}")
        return int(found[1]), int(found[2])
    length = response.headers.get("Content-Length", "")
    if not length.isdecimal():
        raise _Interrupted("the server does not tell the file's length")
    return 0, int(length)
