"""Which version a record names, and that sources need not be installed to run."""

from __future__ import annotations

import tomllib
from importlib.metadata import PackageNotFoundError
from typing import NoReturn

import pytest

from harness.code import version
from tests.conftest import PROJECT


def not_installed(name: str) -> NoReturn:
    raise PackageNotFoundError(name)


def test_sources_that_are_not_installed_run_and_the_record_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    declared = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["version"]
    assert version.current_code().version == declared
    monkeypatch.setattr(version, "version", not_installed)
    assert version.current_code().version == f"{declared} (not installed)"
