"""Programs from Debian's packages that tests drive."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence

INSTALL_SECONDS = 300


class NotInstalled(Exception):
    """A program is missing and could not be installed; the message is one line."""


def install(packages: Sequence[str], missing: Sequence[str]) -> None:
    """Install packages with apt-get. Raises NotInstalled saying what apt-get said.

    missing: the programs wanted of them, for the message.
    """
    wanted = f"{', '.join(missing)} not installed"
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "update"], ["apt-get", "install", "-y", "--no-install-recommends", *packages]):
        try:
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, check=False, timeout=INSTALL_SECONDS
            )
        except FileNotFoundError:
            raise NotInstalled(f"{wanted}, and there is no apt-get to install {' and '.join(packages)}") from None
        except subprocess.TimeoutExpired:
            raise NotInstalled(f"{wanted}; '{' '.join(command)}' took over {INSTALL_SECONDS} s") from None
        if done.returncode != 0:
            raise NotInstalled(f"{wanted}; '{' '.join(command)}': {_first_error(done.stderr)}")


def _first_error(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return next((line for line in lines if line.startswith("E:")), (lines or ["it failed without a word"])[-1])
