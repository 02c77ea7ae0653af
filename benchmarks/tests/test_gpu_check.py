"""The check of a GPU machine: its images, its groups, its wheels, and parts that fail or do not end."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import pytest
import torch

from benchmarks.gpu import check as gpu_check
from benchmarks.gpu import images, wheels
from benchmarks.gpu.check import Check, Line, Part, goal_rows, run_part
from benchmarks.gpu.coco_sizes import SIZES, batch
from benchmarks.gpu.device import device_of
from benchmarks.measure import Goal, Report
from detector.data.coco.index import load_index, trainable
from detector.data.coco.verify import check_images


def test_images_are_a_coco_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sum(SIZES.values()) == 80
    monkeypatch.setattr(images, "PARTS", {"train2017": 3, "val2017": 1})
    images.make_images(tmp_path)
    for split, count in images.PARTS.items():
        index = load_index(tmp_path, split)
        assert len(trainable(index)) == count
        assert check_images(index, decode=True) == []
        assert {(int(w), int(h)) for w, h in zip(index.widths, index.heights, strict=True)} <= set(SIZES)


def test_groups_are_of_one_orientation_and_of_the_sizes_of_a_training() -> None:
    groups = batch(torch.Generator().manual_seed(0), num_groups=8, short_side=80, max_size=133, pinned=False)
    assert [len(group.images) for group in groups] == [2] * 8
    for group in groups:
        shapes = [image.shape[1:] for image in group.images]
        assert len({height > width for height, width in shapes if height != width}) <= 1
        # The base codebase rounds the short side, and the long one may pass by a pixel.
        assert all(min(shape) <= 80 and max(shape) <= 134 for shape in shapes)
        for (height, width), target in zip(shapes, group.targets, strict=True):
            assert (target["boxes"][:, 2:] > target["boxes"][:, :2]).all()
            assert (target["boxes"].amax(dim=0) <= torch.tensor([width, height] * 2)).all()


GOALS = (
    Goal(what="DR loss", value=75.0, unit="% of the limit", goal=80, at_least=True),
    Goal(what="a step", value=58.0, unit="ms", goal=60),
)


def test_goals_say_whether_they_are_reached() -> None:
    assert goal_rows(Report(goals=GOALS)) == [
        Line("DR loss", "75 % of the limit", ">= 80 % of the limit", "not reached"),
        Line("a step", "58 ms", "<= 60 ms", "reached"),
    ]


def part(code: str, seconds: float = 60.0) -> Part:
    return Part("a part", seconds, (sys.executable, "-c", code), lambda: [Line("seen", "1")])


def test_a_part_that_fails_or_does_not_end_is_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_check, "LEAST_SECONDS", 0.5)
    check = Check(tmp_path, tmp_path, on_cpu=True)
    assert run_part(part("print('hello')"), check, 60.0) == [Line("seen", "1")]
    assert (tmp_path / "a part.log").read_text() == "hello\n"
    (seen, failed) = run_part(part("raise SystemExit(3)"), check, 60.0)
    assert (seen.value, failed.value, failed.verdict) == ("1", "exit code 3", "not reached")
    (seen, late) = run_part(part("while True: pass", 1.0), check, 60.0)
    assert seen.value == "1"  # what it left before
    assert late.value == "ended after 1 s, its limit; see a part.log"
    (never,) = run_part(part(""), check, 0.2)
    assert never.value == "not started: no time left"


def test_every_part_has_a_limit_and_all_together_take_eight_minutes_at_most(tmp_path: Path) -> None:
    parts = Check(tmp_path, tmp_path, on_cpu=False).parts()
    assert [part.name for part in parts][:4] == ["tests", "gpu_losses", "gpu_step", "gpu_shapes"]
    assert [part.name for part in parts][4:] == ["train-bf16", "train-tf32", "train-fp16", "train-fp32"]
    assert sum(part.seconds for part in parts) <= 480


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_benchmark_of_a_gpu_needs_one() -> None:
    with pytest.raises(SystemExit, match="no CUDA device"):
        device_of(quick=False)


def test_missing_packages_are_named_with_the_command_that_fetches_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert {"torch", "pycocotools", "submitit", "typer", "pytest"} <= set(wheels.required())
    monkeypatch.setattr(wheels, "required", lambda: ["torch", "no-such-package"])
    monkeypatch.setattr(sys, "path", sys.path[:])
    assert wheels.main(tmp_path, None) == 2
    said = capsys.readouterr().out
    assert said.startswith("Missing: no-such-package. ")
    assert "--dest WHEELS no-such-package\n" in said


@pytest.mark.skipif(not Path(sys.prefix, "bin", "pip").exists(), reason="needs pip")
def test_wheels_of_missing_packages_become_importable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, site = tmp_path / "wheels", tmp_path / "site"
    made.mkdir()
    for name in ("no_such_package", "torch"):  # the second is there already
        info = f"{name}-1.0.dist-info"
        with zipfile.ZipFile(made / f"{name}-1.0-py3-none-any.whl", "w") as file:
            file.writestr(f"{name}.py", "")
            file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
            file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            file.writestr(f"{info}/RECORD", "")
    monkeypatch.setattr(wheels, "required", lambda: ["torch", "no-such-package"])
    monkeypatch.setattr(sys, "path", sys.path[:])
    assert wheels.main(site, made) == 0
    assert (site / "no_such_package.py").exists()
    assert not (site / "torch.py").exists()
