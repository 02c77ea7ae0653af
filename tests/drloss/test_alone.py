"""The loss by itself: beside torch and numpy alone, its help, its page, and its message for what is no tensor."""

from __future__ import annotations

import doctest
import re
import subprocess
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import drloss.modules
from drloss import BACKGROUND, IGNORED, CrossEntropyLoss, DRLoss, FocalLoss
from tests.pages import blocks, named_block

PROJECT = Path(__file__).resolve().parents[2]
PAGE = "losses.md"

# Only torch, numpy, what these two need, and drloss can be found: what ``pip install --no-deps`` leaves.
ALONE = """
import importlib.metadata, re, sys
from importlib.abc import MetaPathFinder
import importlib

def plain(name):
    return name.lower().replace("_", "-")

def needed(name, found):
    if name not in found:
        found.add(name)
        try:
            requires = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            return found
        for text in requires:
            if "extra ==" not in text and not text.startswith("triton"):
                needed(plain(re.match(r"[A-Za-z0-9._-]+", text).group()), found)
    return found

kept = needed("torch", set()) | needed("numpy", set())
of_module = importlib.metadata.packages_distributions()

def is_there(name):
    top = name.partition(".")[0]
    owners = {plain(owner) for owner in of_module.get(top, [])}
    return top == "drloss" or top not in ("detector", "harness") and (not owners or bool(owners & kept))

class Only(MetaPathFinder):
    def __init__(self, finders):
        self.finders = finders

    def find_spec(self, name, path, target=None):
        found = (finder.find_spec(name, path, target) for finder in self.finders if is_there(name))
        return next((spec for spec in found if spec is not None), None)

sys.meta_path[:] = [Only(list(sys.meta_path))]
for name in ("numba", "msgspec", "triton", "scipy"):
    try:
        __import__(name)
    except ModuleNotFoundError:
        continue
    raise AssertionError(f"{name} is not blocked")
import torch
import drloss.functional
from drloss import BACKGROUND, CrossEntropyLoss, DRLoss, FocalLoss
torch.manual_seed(0)
logits = torch.randn(2, 300, 80)
labels = torch.full((2, 300), BACKGROUND)
labels[:, :5] = 3
losses = [DRLoss(pairing=pairing) for pairing in ("dr", "neg_only", "all", "worst_case")]
losses += [DRLoss(pairing="all", surrogate="hinge"), DRLoss(prior="hard_negative"), FocalLoss(), CrossEntropyLoss()]
for loss in losses:
    leaf = logits.clone().requires_grad_()
    value = loss(leaf, labels)
    value.backward()
    print(f"{value.item():.4f} {leaf.grad.abs().sum().item():.4f}")
"""


def values(code: str) -> list[list[float]]:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return numbers(done.stdout)


def numbers(text: str) -> list[list[float]]:
    return [[float(word) for word in line.split()] for line in text.splitlines()]


def test_torch_and_numpy_are_enough() -> None:
    alone = values(ALONE)
    with redirect_stdout(StringIO()) as printed:
        exec("import torch\n" + ALONE.split("import torch\n")[1], {})
    whole = numbers(printed.getvalue())
    assert len(alone) == 8
    for first, second in zip(alone, whole, strict=True):
        assert first == pytest.approx(second, rel=2e-3)


def test_the_example_of_the_help_is_right() -> None:
    found = doctest.testmod(drloss.modules)
    assert found.attempted >= 8
    assert found.failed == 0


def test_the_help_says_shapes_labels_and_the_papers_symbols() -> None:
    text = DRLoss.__doc__ or ""
    for word in ("[N, R, K]", "-1 background", "-2 ignored", "lambda+", "lambda-", "Eq. 9", "gamma", "Example"):
        assert word in text


LABELS = torch.zeros(2, 3).long()


@pytest.mark.parametrize("loss", [DRLoss(), DRLoss(pairing="all"), FocalLoss(), CrossEntropyLoss()], ids=repr)
@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (None, LABELS, "logits are NoneType. Expected: a torch tensor of floats, [N, R, K]"),
        (np.zeros((2, 3, 4)), LABELS, "logits are ndarray. Expected"),
        ([[0.5, 0.1]], LABELS, "logits are a list of list. Expected"),
        ([torch.zeros(2, 3, 4), None], LABELS, "logits are a list of NoneType. Expected"),
        (torch.zeros(2, 3, 4), [[0, 1, 2]], "labels are list. Expected: a torch tensor of int64, [N, R]"),
        (torch.zeros(2, 3, 4), np.zeros((2, 3)), "labels are ndarray. Expected"),
        (torch.zeros(2, 3, 4), None, "labels are NoneType. Expected"),
    ],
)
def test_what_is_no_tensor_gets_one_message(loss: torch.nn.Module, logits: Any, labels: Any, message: str) -> None:
    with pytest.raises(TypeError, match=re.escape(message)):
        loss(logits, labels)


def run_block(title: str, **names: Any) -> dict[str, Any]:
    space = {"BACKGROUND": BACKGROUND, "IGNORED": IGNORED, "torch": torch, **names}
    exec(named_block(PAGE, title), space)
    return space


def test_the_first_block_of_the_page_runs() -> None:
    exec(blocks(PAGE, "python")[0], space := {})  # type: ignore[var-annotated]
    assert bool(space["logits"].grad.isfinite().all())


def test_labels_of_torchvision_are_converted() -> None:
    title = "from torchvision: matched_idxs [R] of one image, and its target's labels"
    matched = torch.tensor([1, 0, -1, -2])
    found = run_block(title, matched_idxs=matched, target={"labels": torch.tensor([7, 4])})
    assert found["labels"].tolist() == [4, 7, BACKGROUND, IGNORED]
    assert matched.tolist() == [1, 0, -1, -2]
    no_boxes = {"labels": torch.zeros(0, dtype=torch.int64)}
    assert run_block(title, matched_idxs=torch.tensor([-1, -1]), target=no_boxes)["labels"].tolist() == [-1, -1]


def test_labels_of_other_projects_are_converted() -> None:
    zero = run_block("from labels with background 0: labels_from_1 [N, R]", labels_from_1=torch.tensor([[3, 0, -1]]))
    assert zero["labels"].tolist() == [[2, BACKGROUND, IGNORED]]
    detectron2 = run_block(
        "from Detectron2: gt_labels [N, R], num_classes K", gt_labels=torch.tensor([[3, 80, -1]]), num_classes=80
    )
    assert detectron2["labels"].tolist() == [[3, BACKGROUND, IGNORED]]
    mmdetection = run_block(
        "from mmdetection: label_targets [N, R], label_weights [N, R], num_classes K",
        label_targets=torch.tensor([[3, 80, 80]]),
        label_weights=torch.tensor([[1.0, 1.0, 0.0]]),
        num_classes=80,
    )
    assert mmdetection["labels"].tolist() == [[3, BACKGROUND, IGNORED]]


def test_the_loss_stands_in_torchvisions_retinanet() -> None:
    torch.manual_seed(0)
    model = run_block("drloss in torchvision")["model"].train()
    model.transform.min_size, model.transform.max_size = (96,), 96
    images = [torch.rand(3, 96, 96) for _ in range(2)]
    box = {"boxes": torch.tensor([[10.0, 10.0, 70.0, 80.0]]), "labels": torch.tensor([3])}
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    first = model(images, [box, box])["classification"]
    assert first.item() == pytest.approx(2.03, rel=0.05)
    first.backward()
    assert model(images, [box, empty])["classification"].item() == pytest.approx((2.03 + 0.46) / 2, rel=0.05)
