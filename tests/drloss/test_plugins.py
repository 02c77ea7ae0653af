"""Losses from other packages: found, refused with a reason, named in ids, told apart by their source."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib import invalidate_caches
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeAlias, get_args

import pytest

from drloss import build_loss, plugins
from drloss.config import DRLossConfig
from drloss.registry import initial_value
from support.loss_package import LOSS, install_package

Install: TypeAlias = "Callable[..., Path]"

BROKEN = """
from msgspec import Struct
from drloss.config import LossSpec
class Good(Struct, frozen=True, forbid_unknown_fields=True, tag_field="name", tag="mine"): ...
"""


@pytest.fixture
def install_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Installs packages into this process, and forgets them."""

    def put(path: Path) -> Path:
        monkeypatch.syspath_prepend(str(path))
        invalidate_caches()
        plugins.plugins.cache_clear()
        return path

    yield put
    plugins.plugins.cache_clear()
    plugins._source_sha256.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] in (LOSS, "broken_loss")]:
        del sys.modules[name]


def write_by_hand(site: Path, code: str, entries: dict[str, str], name: str = "broken-loss") -> Path:
    """A package as an installer leaves it."""
    info = site / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    lines = "".join(f"{key} = {value}\n" for key, value in entries.items())
    (info / "entry_points.txt").write_text(f"[drloss.losses]\n{lines}")
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (site / "broken_loss.py").write_text(code)
    (info / "RECORD").write_text("broken_loss.py,,\n")
    return site


def config_of(name: str = LOSS, **values: Any) -> Any:
    (plugin,) = (plugin for plugin in plugins.plugins() if plugin.name == name)
    assert plugin.spec is not None, plugin.problem
    return plugin.spec.config(**values)


def test_without_a_package_there_are_the_built_in_losses_only() -> None:
    assert [plugin for plugin in plugins.plugins() if plugin.name == LOSS] == []
    assert len(get_args(plugins.LossConfig)) >= 3
    assert plugins.package_of(DRLossConfig()) is plugins.source_sha256(DRLossConfig()) is None


def test_a_package_adds_a_loss(install_here: Install, tmp_path: Path) -> None:
    install_here(install_package(tmp_path))
    config = config_of(momentum=0.5)
    assert plugins.package_of(config) == "running-focal==0.1.0"
    assert [name for name, _ in build_loss(config).named_buffers()] == ["positives"]
    assert initial_value(config, 0.5, [SimpleNamespace(num_positive=2, num_negative=10)]) is not None  # type: ignore[list-item]
    assert plugins.plugins()[0].distribution is not None


def test_the_source_digest_changes_with_the_source_and_not_with_the_place(
    install_here: Install, tmp_path: Path
) -> None:
    digests = []
    for number, changes in enumerate(({}, {}, {"The loss itself": "The loss, edited"})):
        install_here(install_package(tmp_path / str(number), changes))
        digests.append(plugins.source_sha256(config_of()))
        plugins._source_sha256.cache_clear()
        for name in [name for name in sys.modules if name.partition(".")[0] == LOSS]:
            del sys.modules[name]
    assert digests[0] == digests[1]
    assert digests[2] not in (None, digests[0])


def test_the_source_of_an_editable_install_is_that_of_its_module(install_here: Install, tmp_path: Path) -> None:
    installed = install_here(install_package(tmp_path / "whole"))
    whole = plugins.source_sha256(config_of())
    # An editable install lists no source, but a file that puts the source's folder on the path.
    (record,) = installed.glob("*.dist-info/RECORD")
    record.write_text("".join(line for line in record.read_text().splitlines(True) if not line.startswith(LOSS)))
    plugins.plugins.cache_clear()
    plugins._source_sha256.cache_clear()
    assert plugins.source_sha256(config_of()) == whole


@pytest.mark.parametrize(
    ("code", "entries", "problem"),
    [
        ("import no_such_library", {"mine": "broken_loss:SPEC"}, "cannot be imported (ModuleNotFoundError: No module"),
        (BROKEN, {"mine": "broken_loss:SPEC"}, "cannot be imported (AttributeError"),
        (BROKEN + "SPEC = 3", {"mine": "broken_loss:SPEC"}, "is a int, not a drloss.config.LossSpec"),
        (BROKEN + "SPEC = LossSpec('other', Good, 'm:f')", {"mine": "broken_loss:SPEC"}, "has the name 'other'"),
        (BROKEN + "SPEC = LossSpec('mine', dict, 'm:f')", {"mine": "broken_loss:SPEC"}, "not a msgspec Struct"),
        (
            BROKEN + "class Loose(Struct, tag_field='name', tag='mine'): ...\nSPEC = LossSpec('mine', Loose, 'm:f')",
            {"mine": "broken_loss:SPEC"},
            "must be declared with frozen=True and forbid_unknown_fields=True",
        ),
        (
            BROKEN
            + "class No(Struct, frozen=True, forbid_unknown_fields=True): ...\nSPEC = LossSpec('mine', No, 'm:f')",
            {"mine": "broken_loss:SPEC"},
            'must be declared with tag_field="name" and tag="mine"',
        ),
        (BROKEN + "SPEC = LossSpec('dr', Good, 'm:f')", {"dr": "broken_loss:SPEC"}, "a built-in loss has this name"),
    ],
)
def test_a_broken_package_is_set_aside_with_a_reason(
    install_here: Install, tmp_path: Path, code: str, entries: dict[str, str], problem: str
) -> None:
    install_here(write_by_hand(tmp_path / "site", code, entries))
    (plugin,) = (plugin for plugin in plugins.plugins() if plugin.package == "broken-loss")
    assert plugin.spec is None
    assert problem in plugin.problem
    (name,) = entries
    assert plugins.why_unknown(name).startswith(f"The loss '{name}' of broken-loss==1.0 cannot be used: ")


def test_of_two_packages_with_one_name_neither_is_used(install_here: Install, tmp_path: Path) -> None:
    code = BROKEN + "SPEC = LossSpec('mine', Good, 'm:f')"
    install_here(write_by_hand(tmp_path / "a", code, {"mine": "broken_loss:SPEC"}))
    install_here(write_by_hand(tmp_path / "b", code, {"mine": "broken_loss:SPEC"}, name="twin"))
    found = [plugin for plugin in plugins.plugins() if plugin.name == "mine"]
    assert [plugin.package for plugin in found] == ["broken-loss", "twin"]
    assert {plugin.problem for plugin in found} == {"2 installed packages declare it"}


def test_a_loss_that_is_not_known_is_refused(install_here: Install) -> None:
    with pytest.raises(TypeError, match=r"is no loss\. Known: DRLossConfig, FocalLossConfig, CrossEntropyConfig"):
        build_loss(AnyStruct())


class AnyStruct(plugins.Struct):
    """No loss's."""
