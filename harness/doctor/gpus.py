"""Checks of this machine's GPUs: driver, architecture, free memory, and whether torch computes on each."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable

from harness.doctor.node_checks import Answer, error_text, operators_work, why_no_cuda

NAMED = re.compile(r"(?P<kind>sm|compute)_(?P<number>\d+)(?P<only>a?)f?")


def gpu_answers(count: int) -> list[tuple[str, Answer]]:
    """Names and results; ``count``: of the GPUs that this process may use. Imports torch."""
    if not count:
        return [("GPUs", ("note", "none: profiles run on the CPU"))]
    import torch

    if not torch.cuda.is_available():
        return [("GPUs", ("fail", f"{count}, and torch sees none: {why_no_cuda()}")), ("driver", driver())]
    seen = torch.cuda.device_count()
    found: list[tuple[str, Answer]] = [("GPUs", ("ok" if seen == count else "note", f"{count}; torch sees {seen}"))]
    found.append(("driver", driver()))
    return found + [(f"GPU {index}", gpu_works(index)) for index in range(seen)]


def driver() -> Answer:
    """What nvidia-smi, which asks NVML, says of the driver and of memory errors since the last start."""
    if shutil.which("nvidia-smi") is None:
        return "note", "nvidia-smi is not there"
    fields = "driver_version,ecc.errors.uncorrected.volatile.total"
    command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [[cell.strip() for cell in line.split(",")] for line in done.stdout.splitlines() if "," in line]
    if done.returncode or not lines:
        said = " ".join((done.stdout + done.stderr).split())[:300]
        return "fail", f"nvidia-smi: {said or f'exit code {done.returncode}'}"
    version = ", ".join(sorted({line[0] for line in lines}))
    broken = [f"GPU {index}: {line[1]}" for index, line in enumerate(lines) if line[1].isdigit() and int(line[1])]
    if broken:
        return "note", f"{version}; uncorrectable memory errors since the last start: {', '.join(broken)}"
    return "ok", version


def gpu_works(index: int) -> Answer:
    """Name, architecture, memory, and an operator of torchvision and a product of matrices on it."""
    import torch

    name, capability = torch.cuda.get_device_name(index), torch.cuda.get_device_capability(index)
    built = torch.cuda.get_arch_list()
    fits = covers(built, capability)
    text = f"{name}, architecture sm_{capability[0]}{capability[1]}"
    if not fits:
        return "fail", f"{text}, for which this torch has no code (it has {', '.join(built)}); install one that has"
    try:
        free, total = torch.cuda.mem_get_info(index)
        state, operators = operators_work(f"cuda:{index}")
        square = torch.ones(16, 16, device=f"cuda:{index}")
        if state == "ok" and (square @ square)[0, 0].item() != 16:
            state, operators = "fail", "a product of matrices is wrong"
    except RuntimeError as error:
        return "fail", f"{text}: {error_text(error)}"
    text = f"{text}, {free / 2**30:.0f} of {total / 2**30:.0f} GiB free; {operators}"
    return ("note", f"{text}; others use it") if state == "ok" and free < total / 2 else (state, text)


def covers(built: Iterable[str], capability: tuple[int, int]) -> bool:
    """Whether code for the architectures ``built`` runs on a GPU of this capability.

    Code for sm_80 runs on 8.0 and later ones of the same first digit; compute_80 is compiled at the start for any later
    one; a letter a binds code to one capability.
    """
    for text in built:
        named = NAMED.fullmatch(text)
        if named is None:
            continue
        of = divmod(int(named["number"]), 10)
        if of == capability or (
            not named["only"] and of <= capability and (named["kind"] == "compute" or of[0] == capability[0])
        ):
            return True
    return False
