"""A folder whose file server can be made to fail: a FUSE file system that passes everything on to another folder.

    /usr/bin/python3 benchmarks/faults/away_folder.py BACKING MOUNTED FLAG

While the file FLAG exists, everything in MOUNTED answers EIO, as a network file system does whose server is away.
Needs root, /dev/fuse and Debian's python3-fusepy, hence the system's own Python. Unmounting it ends it.
"""

from __future__ import annotations

import errno
import os
import sys
from typing import Any

import fusepy  # type: ignore[import-not-found]


class AwayFolder(fusepy.Operations):  # type: ignore[misc]
    """Passes operations on to ``backing``, or refuses them."""

    def __init__(self, backing: str, flag: str) -> None:
        self.backing, self.flag = backing, flag

    def __call__(self, operation: str, path: str, *arguments: Any) -> Any:
        if operation not in ("init", "destroy") and os.path.exists(self.flag):
            raise fusepy.FuseOSError(errno.EIO)
        try:
            return getattr(self, operation)(self.backing + (path or ""), *arguments)
        except OSError as error:
            raise fusepy.FuseOSError(error.errno or errno.EIO) from error

    def access(self, path: str, mode: int) -> int:
        return 0

    def chmod(self, path: str, mode: int) -> None:
        os.chmod(path, mode)

    def chown(self, path: str, uid: int, gid: int) -> None:
        os.chown(path, uid, gid)

    def getattr(self, path: str, handle: int | None = None) -> dict[str, Any]:
        found = os.lstat(path)
        names = ("st_atime", "st_ctime", "st_mtime", "st_gid", "st_uid", "st_mode", "st_nlink", "st_size", "st_ino")
        return {name: getattr(found, name) for name in names}

    def readdir(self, path: str, handle: int) -> list[str]:
        return [".", "..", *os.listdir(path)]

    def readlink(self, path: str) -> str:
        return os.readlink(path)

    def rmdir(self, path: str) -> None:
        os.rmdir(path)

    def mkdir(self, path: str, mode: int) -> None:
        os.mkdir(path, mode)

    def statfs(self, path: str) -> dict[str, int]:
        found = os.statvfs(path)
        return {name: getattr(found, name) for name in ("f_bavail", "f_bfree", "f_blocks", "f_bsize", "f_files")}

    def unlink(self, path: str) -> None:
        os.unlink(path)

    def symlink(self, path: str, target: str) -> None:
        os.symlink(target, path)

    def rename(self, path: str, new: str) -> None:
        os.rename(path, self.backing + new)

    def link(self, path: str, existing: str) -> None:
        os.link(self.backing + existing, path)

    def utimens(self, path: str, times: tuple[float, float] | None = None) -> None:
        os.utime(path, times)

    def open(self, path: str, flags: int) -> int:
        return os.open(path, flags)

    def create(self, path: str, mode: int, info: Any = None) -> int:
        return os.open(path, os.O_RDWR | os.O_CREAT, mode)

    def read(self, path: str, size: int, offset: int, handle: int) -> bytes:
        return os.pread(handle, size, offset)

    def write(self, path: str, data: bytes, offset: int, handle: int) -> int:
        return os.pwrite(handle, data, offset)

    def truncate(self, path: str, length: int, handle: int | None = None) -> None:
        os.truncate(path, length)

    def flush(self, path: str, handle: int) -> None:
        os.fsync(handle)

    def release(self, path: str, handle: int) -> None:
        os.close(handle)

    def fsync(self, path: str, data_only: bool, handle: int) -> None:
        os.fsync(handle)


if __name__ == "__main__":
    backing, mounted, flag = sys.argv[1:]
    # The kernel caches nothing, so that a failure is seen at once.
    fusepy.FUSE(AwayFolder(backing, flag), mounted, foreground=True, attr_timeout=0, entry_timeout=0, use_ino=True)
