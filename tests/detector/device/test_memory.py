"""A lack of GPU memory: the message has the size of the pass, and what would help in this case."""

from __future__ import annotations

import pytest
import torch

from detector.data.loader import Group
from detector.device.memory import explained_lack_of_memory
from detector.errors import TrainingError
from harness.failures.classes import classify

SAID = (
    "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 79.10 GiB of which 1.12 GiB is "
    "free. Including non-PyTorch memory, this process has 77.98 GiB memory in use."
)
CPU = torch.device("cpu")


def groups(count: int) -> list[Group]:
    return [Group([torch.empty(3, 800, 1333), torch.empty(3, 600, 900)], []) for _ in range(count)]


def message(count: int, precision: str, device: torch.device = CPU) -> str:
    with pytest.raises(TrainingError) as caught, explained_lack_of_memory(groups(count), precision, device):  # type: ignore[arg-type]
        raise torch.OutOfMemoryError(SAID)
    return str(caught.value)


def test_message_has_the_pass_and_what_helps() -> None:
    text = message(8, "fp32")
    assert text == (
        "CUDA out of memory in a pass of 8 groups, 16 images of 800 x 1344 pixels, precision fp32. Tried to allocate "
        "2.50 GiB. What helps: execution.groups_per_forward in the profile, below 8 (the results stay the same); --set "
        "precision=bf16, about half the memory (another training); smaller images or another GPU."
    )
    assert classify(text) == "GPU memory"


def test_message_offers_nothing_that_is_done_already() -> None:
    text = message(1, "bf16")
    assert "1 group, 2 images" in text
    assert text.endswith("What helps: smaller images or another GPU.")


def test_message_names_what_others_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1 * 2**30, 80 * 2**30))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 30 * 2**30)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 28 * 2**30)
    text = message(1, "bf16", torch.device("cuda"))
    assert "Of the GPU's 80.0 GiB this process holds 30.0 GiB (at most 28.0 GiB in tensors), others 49.0 GiB." in text
    assert "ending what else uses the GPU" in text


def test_other_errors_and_good_ends_pass_as_they_are() -> None:
    with explained_lack_of_memory(groups(1), "fp32", CPU):
        pass
    with pytest.raises(RuntimeError, match="shape"), explained_lack_of_memory(groups(1), "fp32", CPU):
        raise RuntimeError("shape")
