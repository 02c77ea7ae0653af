"""Where a browser or TeX cannot be had, that is said, and the rest goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from support import debian
from tests import programs
from tests.programs import BROWSER, TEX

REFUSES = 'echo "W: old" >&2; echo "E: Could not open lock file" >&2; exit 100'
INSTALLS = """
case "$1" in install)
  printf '#!/bin/sh\\necho %s 1.2\\n' "$4" > {folder}/chromium
  printf '#!/bin/sh\\necho TeX 3\\necho more\\n' > {folder}/pdflatex
  /bin/chmod +x {folder}/chromium {folder}/pdflatex
esac
"""


def apt_get(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "apt-get"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.delenv("CHROMIUM", raising=False)
    monkeypatch.setenv("PATH", str(folder))


@pytest.mark.parametrize(
    ("script", "why"),
    [
        (REFUSES, "{name} not installed; 'apt-get update': E: Could not open lock file"),
        ("exit 1", "{name} not installed; 'apt-get update': it failed without a word"),
        ("exit 0", "{name} not installed, though {packages} are"),
        (None, "{name} not installed, and there is no apt-get to install {packages}"),
    ],
)
def test_each_missing_program_is_a_line_with_the_reason(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    script: str | None,
    why: str,
) -> None:
    apt_get(tmp_path, script or "", monkeypatch)
    if script is None:
        (tmp_path / "apt-get").unlink()
    assert programs.main() == 1
    page, tables = capsys.readouterr().out.splitlines()
    assert page == f"THE PAGE WAS NOT TESTED IN A BROWSER: {why.format(name='chromium', packages='chromium')}"
    packages = "texlive-latex-base and texlive-latex-recommended"
    assert tables == f"THE TABLES WERE NOT COMPILED BY TEX: {why.format(name='pdflatex', packages=packages)}"


def test_what_is_missing_is_installed_and_its_version_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    apt_get(tmp_path, INSTALLS.format(folder=tmp_path), monkeypatch)
    assert programs.main() == 0
    assert capsys.readouterr().out == "browser: chromium 1.2\nTeX: TeX 3\n"


def test_a_program_that_does_not_start_counts_as_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    apt_get(tmp_path, "exit 0", monkeypatch)
    for name in ("chromium", "pdflatex"):
        (tmp_path / name).write_text("#!/bin/sh\nexit 3\n")
        (tmp_path / name).chmod(0o755)
    assert programs.main() == 1
    assert "chromium --version' fails: " in capsys.readouterr().out


def test_a_browser_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHROMIUM", "/opt/browser")
    assert BROWSER.path() == "/opt/browser"
    assert "or name one in CHROMIUM" in BROWSER.why_skipped()
    assert TEX.why_skipped() == "no TeX here: install texlive-latex-base and texlive-latex-recommended"


def test_an_installation_that_takes_too_long_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    apt_get(tmp_path, "exec /bin/sleep 30", monkeypatch)
    monkeypatch.setattr(debian, "INSTALL_SECONDS", 0.1)
    with pytest.raises(debian.NotInstalled, match=r"x not installed; 'apt-get update' took over 0\.1 s"):
        debian.install(["p"], ["x"])
