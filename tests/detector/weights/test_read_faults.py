"""Weight files with missing, misshapen or foreign tensors: every fault is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from detector.errors import WeightsError
from detector.weights.read import Weights, read_weights
from tests.weight_files import blank, peer_shapes, save_torch


def read_changed(tmp_path: Path, change: dict[str, Any]) -> Weights:
    """maskrcnn-benchmark's R-50 with entries replaced, or dropped where the new value is None."""
    state: dict[str, Any] = blank(peer_shapes("maskrcnn_benchmark_r50"))
    for name, value in change.items():
        state.pop(name, None)
        if value is not None:
            state[name] = value
    return read_weights(save_torch(tmp_path / "m.pth", {"model": state}))


LOGITS = "rpn.head.cls_logits.weight"
NAN = torch.full((64,), float("nan"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backbone.fpn.fpn_layer3.bias": None}, r"lacks backbone\.fpn\.layer_blocks\.1\.0\.bias\.$"),
        ({LOGITS: None}, r"lacks head\.classification_head\.cls_logits\.weight, by which its network is told"),
        (
            {"rpn.head.cls_tower.2.bias": None, "rpn.head.cls_tower.2.bais": torch.zeros(256)},
            r"lacks head\.classification_head\.conv\.1\.0\.bias; has an unknown rpn\.head\.cls_tower\.2\.bais\.$",
        ),
        (
            {"backbone.body.layer2.1.conv2.weight": torch.zeros(128, 128, 1, 1)},
            r"layer2\.1\.conv2\.weight is \[128, 128, 1, 1\], not \[128, 128, 3, 3\]",
        ),
        ({"backbone.body.stem.bn1.bias": NAN}, r"backbone\.body\.bn1\.bias is not finite"),
        ({LOGITS: torch.zeros(100, 256, 3, 3)}, "100 class outputs do not fit 9 anchors per location"),
        ({"rpn.head.bbox_tower.0.weight": "text"}, r"lacks .*; has an unknown rpn\.head\.bbox_tower\.0\.weight"),
        ({"backbone.body.layer1.0.conv2.weight": torch.zeros(128, 128, 3, 3)}, "has 128 outputs and 128 inputs"),
    ],
    ids=["missing", "missing predictor", "renamed", "shape", "nan", "outputs", "no tensor", "wide"],
)
def test_read_names_what_is_wrong_with_a_state_dict(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=message) as caught:
        read_changed(tmp_path, change)
    assert str(tmp_path / "m.pth") in str(caught.value)


def test_read_names_every_missing_and_misshapen_tensor(tmp_path: Path) -> None:
    block = "backbone.body.layer4.2."

    with pytest.raises(
        WeightsError, match=r": lacks \S+(; lacks \S+layer4\.2\.\S+){13}; \S+conv1\.weight is \[1\], not "
    ):
        read_changed(
            tmp_path,
            {name: None for name in peer_shapes("maskrcnn_benchmark_r50") if name.startswith(block)}
            | {f"{block}conv1.weight": torch.zeros(1)},
        )


@pytest.mark.parametrize("value", [[1, 2], {"a": torch.zeros(1)}, {}, torch.zeros(1), {"model": {}}])
def test_read_refuses_what_is_of_no_known_format(value: Any, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"not tensors by name|of no known format: its names are"):
        read_weights(save_torch(tmp_path / "m.pth", value))
