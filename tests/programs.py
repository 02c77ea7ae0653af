"""The programs that tests drive beside Python: a browser for the report's page, and TeX for the tables of a paper.

    python -m tests.programs

Installs with apt-get what is missing, and prints a line for each: its version, or why it cannot be had. Exit code 1
where one cannot be had; the tests that need it are skipped then, and counted.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass

from support.debian import NotInstalled, install


@dataclass(frozen=True)
class Program:
    """names: those it may have on PATH. packages: Debian's. variable: of the environment, which names another one.

    without: what a run of the tests did not do where it cannot be had.
    """

    title: str
    names: tuple[str, ...]
    packages: tuple[str, ...]
    without: str
    variable: str | None = None

    def path(self) -> str | None:
        """Where it is; None where it is not."""
        named = os.environ.get(self.variable) if self.variable else None
        return named or next((found for name in self.names if (found := shutil.which(name))), None)

    def why_skipped(self) -> str:
        """What a test says that is skipped without it."""
        other = f", or name one in {self.variable}" if self.variable else ""
        return f"no {self.title} here: install {' and '.join(self.packages)}{other}"

    def ready(self) -> str:
        """Its version, after installing it where it is missing. Raises NotInstalled."""
        if self.path() is None:
            install(self.packages, self.names[:1])
        if (path := self.path()) is None:
            raise NotInstalled(f"{self.names[0]} not installed, though {' and '.join(self.packages)} are")
        try:
            done = subprocess.run([path, "--version"], capture_output=True, text=True, check=True, timeout=60)
        except (OSError, subprocess.SubprocessError) as error:
            raise NotInstalled(f"'{path} --version' fails: {error}") from None
        return (done.stdout.strip() or path).splitlines()[0].strip()


BROWSER = Program(
    "browser",
    ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"),
    ("chromium",),
    "THE PAGE WAS NOT TESTED IN A BROWSER",
    variable="CHROMIUM",
)
TEX = Program(
    "TeX",
    ("pdflatex",),
    ("texlive-latex-base", "texlive-latex-recommended"),
    "THE TABLES WERE NOT COMPILED BY TEX",
)


def main() -> int:
    """A line for each, and whether all can be used."""
    code = 0
    for program in (BROWSER, TEX):
        try:
            print(f"{program.title}: {program.ready()}")
        except NotInstalled as error:
            print(f"{program.without}: {error}")
            code = 1
    return code


if __name__ == "__main__":
    sys.exit(main())
