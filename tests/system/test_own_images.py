"""A user's own images: one object in each trains, and a finished run notices when the images are others."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.own_roots import SIZE, root_of


def run(place: Path, root: Path) -> tuple[int, str]:
    """Exit code and all that is said."""
    folders = {
        "HARNESS_RUNS": str(place / "runs"),
        "HARNESS_RESULTS": str(place / "results"),
        "HARNESS_EXPERIMENTS": "",
    }
    words = ("run", "table2/L6", "--profile", "overfit", "--data", str(root))
    done = subprocess.run(
        [sys.executable, "-m", "harness.cli", *words],
        env={**os.environ, **folders, "HARNESS_EXPERIMENTS": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
def test_one_object_per_image_trains_and_other_images_are_noticed(tmp_path: Path) -> None:
    root = root_of(tmp_path / "root", images=8)
    for split in ("train", "val"):
        (root / split).rename(root / f"{split}2017")
        (root / "annotations" / f"instances_{split}.json").rename(root / "annotations" / f"instances_{split}2017.json")
    code, said = run(tmp_path, root)
    assert code == 0, said
    assert "AP " in said
    for path in root.glob("*2017/*.jpg"):
        Image.new("RGB", SIZE).save(path)
    code, said = run(tmp_path, root)
    assert code == 2, said
    assert "images" in said
    assert "--fresh" in said
