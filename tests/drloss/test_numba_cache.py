"""Compiled code on disk, with several sources, processes and versions of numba in one folder."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numba
import pytest
from numba.core.caching import CompileResultCacheImpl

from drloss import numba_cache
from drloss.numba_cache import cached_njit
from tests.repository.layers import PROJECT

SOURCE = """
from drloss.numba_cache import cached_njit

@cached_njit()
def f(x):
    return x + {step}
"""


class Killed(BaseException):
    """As a process that is killed leaves: no handler tidies up."""


@pytest.fixture
def load(tmp_path: Path) -> Callable[[int], Any]:
    """Writes the module's source, and returns its function as a new process would have it."""

    def write_and_load(step: int) -> Any:
        path = tmp_path / "module.py"
        path.write_text(SOURCE.format(step=step))
        spec = importlib.util.spec_from_file_location("module", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.f

    return write_and_load


def hits(function: Any) -> int:
    return sum(function.stats.cache_hits.values())


def entries(folder: Path) -> list[Path]:
    return sorted(folder.glob("__pycache__/*.nb?"))


def test_a_second_process_takes_what_the_first_compiled(load: Callable[[int], Any]) -> None:
    first = load(1)
    assert (first(1), first(1.0), hits(first)) == (2, 2.0, 0)
    second = load(1)
    assert (second(1), second(1.0), hits(second)) == (2, 2.0, 2)


@pytest.mark.parametrize("written", [0, 1, 2, 3])
def test_code_of_another_source_is_never_taken_whenever_a_process_ends(
    load: Callable[[int], Any], monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    """Killed before, between and after the files that it writes: what it leaves is what others see meanwhile."""
    assert load(1)(1) == 2
    count, replace = 0, os.replace

    def replace_some(*paths: Any) -> None:
        nonlocal count
        if count == written:
            raise Killed
        count += 1
        replace(*paths)

    changed = load(2)
    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", replace_some)
        patched.setattr(Path, "replace", lambda self, target: replace_some(self, target))
        with suppress(Killed):
            changed(1)
    assert load(2)(1) == 3


def test_versions_of_numba_keep_their_code_side_by_side(
    load: Callable[[int], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load(1)(1) == 2
    (ours,) = entries(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(numba, "__version__", "0.1.2")
        other = load(1)
        assert (other(1), hits(other)) == (2, 0)
    assert len(entries(tmp_path)) == 2
    again = load(1)
    assert (again(1), hits(again)) == (2, 1)
    assert ours in entries(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\x80", b"not compiled code", None])
def test_an_entry_that_cannot_be_read_is_compiled_again(
    load: Callable[[int], Any], tmp_path: Path, content: bytes | None
) -> None:
    assert load(1)(1) == 2
    (entry,) = entries(tmp_path)
    whole = entry.read_bytes()
    entry.write_bytes(whole[: len(whole) // 2] if content is None else content)
    assert load(1)(1) == 2
    again = load(1)
    assert (again(1), hits(again)) == (2, 1)


def test_an_entry_of_another_signature_is_not_taken(load: Callable[[int], Any], tmp_path: Path) -> None:
    assert load(1)(1) == 2
    (of_int,) = entries(tmp_path)
    assert load(1)(1.0) == 2.0
    (of_float,) = {*entries(tmp_path)} - {of_int}
    of_float.write_bytes(of_int.read_bytes())
    assert load(1)(1.5) == 2.5


def test_only_the_newest_source_is_kept(load: Callable[[int], Any], tmp_path: Path) -> None:
    for step in range(3):
        function = load(step)
        assert (function(1), function(1.0)) == (1 + step, 1.0 + step)
    assert len(entries(tmp_path)) == 2
    function.recompile()
    assert len(entries(tmp_path)) == 2


@pytest.mark.parametrize("failing", ["write_bytes", "replace"])
def test_a_full_disk_ends_nothing(
    load: Callable[[int], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    def refuse(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    function = load(1)
    with monkeypatch.context() as patched:
        patched.setattr(Path, failing, refuse)
        assert function(1) == 2
    assert [path.name for path in (tmp_path / "__pycache__").iterdir() if ".nbc" in path.name] == []


def test_without_any_place_to_write_each_process_compiles(
    load: Callable[[int], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CompileResultCacheImpl, "_locator_classes", [])
    assert load(1)(1) == 2
    assert entries(tmp_path) == []


def test_a_signature_is_compiled_at_once_and_the_only_one() -> None:
    @cached_njit("int64(int64)")
    def one_more(x: int) -> int:
        return x + 1

    assert [str(signature) for signature in one_more.signatures] == ["(int64,)"]
    assert one_more(1) == 2
    with pytest.raises(TypeError, match="No matching definition"):
        one_more("text")


def test_processes_that_compile_at_once_all_compute_the_same(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text(SOURCE.format(step=1))
    code = "import module; assert (module.f(1), module.f(1.5), module.f(2j)) == (2, 2.5, 1 + 2j)"
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{PROJECT}"}
    started = [subprocess.Popen([sys.executable, "-c", code], env=environment) for _ in range(4)]
    assert [process.wait() for process in started] == [0, 0, 0, 0]
    assert len(entries(tmp_path)) == 3


def test_the_functions_run_uncompiled_where_numba_is_told_so() -> None:
    code = "from drloss.numba_cache import cached_njit as c; f = c('int64(int64)')(lambda x: x); assert f('a') == 'a'"
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, cwd=PROJECT)


def test_nothing_else_uses_numbas_own_cache() -> None:
    own = Path(numba_cache.__file__)
    for package in ("drloss", "detector", "harness"):
        for path in (PROJECT / package).rglob("*.py"):
            assert path == own or not re.search(r"cache=True|enable_caching", path.read_text()), path
