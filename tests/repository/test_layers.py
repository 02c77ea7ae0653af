"""Who may import whom, and what stays free of torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.repository.layers import (
    ORDER,
    PROJECT,
    circle,
    file_graph,
    floors,
    forbidden,
    full_folders,
    imports,
    modules,
    room,
    room_graph,
)

# Rooms of detector that the harness may import at module level; of the worker only what is free of torch.
TORCH_FREE_ROOMS = {"errors", "storage", "runs", "worker"}
WITH_TORCH = {"detector.worker.run", "detector.worker.trace"}
# What each room of detector knows of drloss.
OF_DRLOSS = {
    "runs": {"drloss.plugins"},
    "data": {"drloss.numba_cache"},
    "model": {"drloss.labels", "drloss.numba_cache"},
    "kernels": {"drloss.labels"},
    "evaluation": {"drloss.labels", "drloss.numba_cache"},
    "build": {"drloss.registry"},
    "sanity": {"drloss.registry", "drloss.labels"},
    "worker": {"drloss.plugins"},
}


def of(name: str, package: str) -> bool:
    return name.split(".")[0] == package


@pytest.mark.parametrize("package", list(ORDER))
def test_rooms_import_only_what_stands_right_of_them(package: str) -> None:
    assert not list(forbidden(package))


@pytest.mark.parametrize("package", list(ORDER))
def test_there_is_no_circle_of_files_or_rooms(package: str) -> None:
    assert circle(file_graph(package)) == []
    assert circle(room_graph(package)) == []


def test_the_house_is_small_enough_to_be_known() -> None:
    for package, most_rooms, most_floors in (("harness", 22, 8), ("detector", 14, 9)):
        rooms = {name: others - {"face"} for name, others in room_graph(package).items() if name != "face"}
        assert len(rooms) <= most_rooms
        assert floors(rooms) <= most_floors
    for package in (*ORDER, "support", "benchmarks"):
        assert not list(full_folders(package, 14))


def test_a_forbidden_import_and_a_circle_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ORDER, "drloss", tuple(reversed(ORDER["drloss"])))
    assert any(text.startswith("drloss.modules imports drloss.functional") for text in forbidden("drloss"))
    assert circle({"a": {"b"}, "b": {"a"}})
    assert floors({"a": {"b"}, "b": {"c"}, "c": set(), "d": set()}) == 3


def test_each_folder_says_what_it_is_for() -> None:
    for package in (*ORDER, "support", "benchmarks"):
        for name, path in modules(package).items():
            assert path.name != "__init__.py" or path.read_text().startswith('"""'), name
        folders = {path.parent for path in modules(package).values()}
        assert all((folder / "__init__.py").exists() for folder in folders)


def test_packages_import_only_what_is_below_them() -> None:
    allowed = {
        "drloss": {"drloss"},
        "detector": {"drloss", "detector"},
        "harness": {"drloss", "detector", "harness", "experiments"},
        "support": {"drloss", "detector", "harness", "experiments", "support"},
        "benchmarks": {"drloss", "detector", "harness", "experiments", "support", "benchmarks"},
        "tests": {"drloss", "detector", "harness", "experiments", "support", "tests"},
    }
    ours = {*allowed, "experiments"}
    for package, others in allowed.items():
        for name, path in modules(package).items():
            found = {other.split(".")[0] for other in imports(path)} & ours
            assert found <= others, name


def test_each_room_of_detector_knows_of_drloss_only_what_it_must() -> None:
    for name, path in modules("detector").items():
        found = {other for other in imports(path) if of(other, "drloss")}
        assert found <= OF_DRLOSS.get(room(name), set()), name


def test_harness_imports_only_torch_free_rooms_of_ours_at_module_level() -> None:
    for name, path in modules("harness").items():
        found = imports(path, only_at_import=True)
        assert not any(of(other, "torch") or of(other, "torchvision") for other in found), name
        assert {other for other in found if of(other, "drloss")} <= {"drloss.config", "drloss.plugins"}, name
        ours = {other for other in found if of(other, "detector")}
        assert {room(other) for other in ours} <= TORCH_FREE_ROOMS, name
        assert not ours & WITH_TORCH, name


def run(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True, cwd=PROJECT)


def test_what_the_harness_imports_at_module_level_does_not_load_torch() -> None:
    below = [name for name in modules("detector") if room(name) in TORCH_FREE_ROOMS and name not in WITH_TORCH]
    every = ["drloss", "detector", "drloss.config", "drloss.plugins", *below, *modules("harness")]
    every.remove("harness.cli.__main__")  # it is the command
    run(f"import sys, {', '.join(every)}; assert 'torch' not in sys.modules, 'torch was imported'")


def test_importing_a_table_does_not_load_pandas_or_scipy_stats() -> None:
    run(
        "import sys, harness.planning.selection, harness.report.formats, harness.report.views; "
        "assert not {'pandas', 'scipy.stats', 'torch'} & set(sys.modules)"
    )


def test_importing_the_command_does_not_load_what_only_its_work_needs() -> None:
    run("import sys, harness.cli; assert not {'yaml', 'numpy', 'submitit', 'harness.registry.load'} & set(sys.modules)")
