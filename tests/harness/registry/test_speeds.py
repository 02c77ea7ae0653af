"""speeds.yaml: read strictly, merged with one of the user's own, and added to by a measurement."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from detector.errors import RegistryError
from harness.planning.speeds import add_speed
from harness.registry.load import Registry
from harness.registry.speeds import MeasuredSpeed

PROJECT = Path(__file__).resolve().parents[3]
NEW = MeasuredSpeed(
    gpu="NVIDIA L40S",
    gpus=1,
    of="training",
    backbone="resnet50",
    precision="bf16",
    groups_per_forward=8,
    images=16,
    short_side=400,
    seconds_per_iteration=0.1,
    source="a test",
)


def test_add_speed_takes_the_place_of_the_same_kind_and_keeps_the_head(tmp_path: Path) -> None:
    path = tmp_path / "speeds.yaml"
    path.write_text((PROJECT / "experiments" / "speeds.yaml").read_text())
    before = path.read_text()
    old = Registry(PROJECT / "experiments").speeds.speeds[0]
    add_speed(path, old)
    assert path.read_text() == before
    add_speed(path, replace(old, seconds_per_iteration=0.12, seen=None), NEW)
    lines, now = before.splitlines(), path.read_text().splitlines()
    assert len(now) == len(lines) + 1
    assert [line for line in lines if line not in now] == [line for line in lines if "0.54" in line]
    add_speed(tmp_path / "new.yaml", NEW)
    assert (tmp_path / "new.yaml").read_text().startswith("speeds:\n  - {gpu: NVIDIA L40S")


def test_speeds_of_ones_own_are_added_and_stand_before_the_projects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = Registry(PROJECT / "experiments").speeds.speeds[0]
    add_speed(tmp_path / "speeds.yaml", replace(old, seconds_per_iteration=0.1, seen=None))
    monkeypatch.setenv("HARNESS_EXPERIMENTS", str(tmp_path))
    found = Registry().speeds
    assert [speed.seconds_per_iteration for speed in found.speeds if speed.key == old.key] == [0.1]
    assert found.kind("H100") is not None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("of: step", "of: stepp", "Valid: 'step', 'training'"),
        ("seen: [0.43, 0.65]", "seen: [0.43, 0.5]", "not between the ends of 'seen'"),
        ("terabytes_per_second", "bandwidth", "unknown key 'bandwidth'. Known keys: name"),
    ],
)
def test_a_wrong_speeds_file_is_told_with_its_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = (PROJECT / "experiments" / "speeds.yaml").read_text()
    assert old in text
    path = tmp_path / "speeds.yaml"
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(RegistryError) as caught:
        add_speed(path, NEW)
    line = text[: text.index(old)].count("\n") + 1
    assert f"speeds.yaml:{line}: " in str(caught.value)
    assert message in str(caught.value)


def test_every_stated_fact_of_the_file_names_a_source() -> None:
    registry = Registry(PROJECT / "experiments")
    assert all(speed.source for speed in registry.speeds.speeds)
    assert all(registry.speeds.kind(speed.gpu) for speed in registry.speeds.speeds)
    names = [name for one in registry.speeds.gpus for name in (one.name, *one.names)]
    assert len(set(names)) == len(names)
