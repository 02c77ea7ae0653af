"""A batch comes over from a worker as it was packed, in one piece of shared memory."""

from __future__ import annotations

import torch

from detector.data.loader import Group
from detector.data.workers.handover import pack, send


def group() -> Group:
    pixels = torch.arange(5 * 7 * 3, dtype=torch.uint8).view(5, 7, 3).permute(2, 0, 1)
    targets = [
        {"boxes": torch.rand(3, 4), "labels": torch.tensor([4, 0, 2])},
        {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)},
    ]
    return Group([pixels, pixels.flip(-1)], targets)


def assert_equal(ours: Group, theirs: Group) -> None:
    for x, y in zip(ours.images, theirs.images, strict=True):
        assert torch.equal(x, y)
        assert x.stride() == y.stride()
    for a, b in zip(ours.targets, theirs.targets, strict=True):
        assert a.keys() == b.keys()
        assert all(torch.equal(a[key], b[key]) and a[key].dtype == b[key].dtype for key in a)


def test_packed_groups_are_opened_bit_for_bit_with_their_layout_in_memory() -> None:
    groups = [group(), group()]
    for ours, theirs in zip(pack(groups).open(), groups, strict=True):
        assert_equal(ours, theirs)


def test_packed_tensors_lie_in_one_block() -> None:
    packed = pack([group(), group()])
    assert packed.block.is_shared()
    (first, second) = packed.open()
    tensors = [*first.images, *second.images, first.targets[0]["boxes"], second.targets[0]["labels"]]
    assert {tensor.untyped_storage().data_ptr() for tensor in tensors} == {packed.block.data_ptr()}


def test_a_tensor_that_is_a_part_of_another_is_packed_alone() -> None:
    whole = torch.arange(24.0).view(4, 6)
    packed = pack([whole[:, ::2], whole[0].expand(3, 6), torch.tensor(7)])
    part, repeated, single = packed.open()
    assert torch.equal(part, whole[:, ::2])
    assert torch.equal(repeated, whole[0].expand(3, 6))
    assert single.item() == 7
    assert packed.block.numel() <= 64 * 5


def test_a_value_without_tensors_needs_no_shared_memory() -> None:
    packed = pack(["nothing", 3])
    assert packed.block.numel() == 0
    assert packed.open() == ["nothing", 3]


def test_what_was_sent_is_opened_from_its_bytes() -> None:
    (ours,) = send([group()]).open()
    assert ours.targets[0]["labels"].tolist() == [4, 0, 2]
