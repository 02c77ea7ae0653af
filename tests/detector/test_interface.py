"""What the package exports and what importing it loads."""

from __future__ import annotations

import subprocess
import sys

import pytest

from detector.build import build_model
from detector.evaluation.load import load_run
from detector.model.retinanet import RetinaNet

EXPORTED = [
    "RetinaNet",
    "RetinaNetHead",
    "build_backbone",
    "build_model",
    "ensure_weights",
    "load_backbone",
    "load_detector",
    "load_run",
    "read_weights",
    "weights_file",
    "write_weights",
]


def test_importing_detector_does_not_import_torch() -> None:
    code = "import sys, detector; assert 'torch' not in sys.modules; print(sorted(detector.__all__))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(EXPORTED)


def test_detector_exports_every_name_it_lists() -> None:
    import detector

    assert (detector.RetinaNet, detector.build_model, detector.load_run) == (RetinaNet, build_model, load_run)
    assert all(getattr(detector, name) is not None for name in detector.__all__)
    assert set(detector.__all__) <= set(dir(detector))
    with pytest.raises(AttributeError, match="no attribute 'Retina'"):
        detector.Retina  # noqa: B018
