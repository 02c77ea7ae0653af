"""Checks of this machine: whether it has what the commands need. Nothing is changed or downloaded."""

from __future__ import annotations

import platform
import shutil
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from msgspec import Struct

from detector.errors import HarnessError
from drloss.plugins import Plugin, plugins
from harness.doctor.gpus import gpu_answers
from harness.doctor.node_checks import State, open_files_limit, shared_memory
from harness.folders import results_folder, runs_folder
from harness.machine import usable_cores, visible_gpus
from harness.planning.data import named_data
from harness.registry.load import Registry

LIBRARIES = ("torch", "torchvision", "pycocotools", "submitit", "numpy", "pandas", "msgspec")


class Finding(Struct, frozen=True):
    """The result of one check. A note does not stop anything from working."""

    state: State
    name: str
    text: str


def examine(data: Path | None) -> list[Finding]:
    """All findings, in the order in which a new user meets them."""
    findings = [Finding("ok", "python", platform.python_version())]
    findings += [_package(name) for name in LIBRARIES]
    findings.append(_operators())
    findings.append(Finding("ok", "cores", str(usable_cores())))
    for name, (state, text) in (("/dev/shm", shared_memory()), ("open files", open_files_limit())):
        findings.append(Finding(state, name, text))
    findings += [Finding(state, name, text) for name, (state, text) in gpu_answers(len(visible_gpus()))]
    findings += [folder_finding("HARNESS_RUNS", runs_folder()), folder_finding("HARNESS_RESULTS", results_folder())]
    findings.append(_experiments())
    findings += [_plugin_loss(plugin) for plugin in plugins()]
    findings.append(_data(data))
    findings += _weights()
    return findings


def _package(name: str) -> Finding:
    try:
        return Finding("ok", name, version(name))
    except PackageNotFoundError:
        return Finding("fail", name, "not installed; run 'make install'")


def packages() -> tuple[str, ...]:
    """Packages whose versions a cluster's nodes must share with this machine: those of plug-in losses too."""
    return *LIBRARIES, *dict.fromkeys(plugin.package for plugin in plugins())


def _plugin_loss(plugin: Plugin) -> Finding:
    name = f"loss {plugin.name}"
    if plugin.problem:
        return Finding("note", name, f"{plugin.release} cannot be used: {plugin.problem}")
    return Finding("ok", name, f"{plugin.release}; it must be installed wherever runs are executed")


def _operators() -> Finding:
    """torchvision's compiled operators load only with the build of torch that they were made for."""
    try:
        import torch
        import torchvision

        kept = torchvision.ops.nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.ones(1), 0.5)
        return Finding("ok", "operators", f"torchvision's NMS works ({len(kept)} of 1 kept)")
    except (ImportError, RuntimeError, AttributeError) as error:
        return Finding("fail", "operators", f"torch and torchvision do not fit together: {error}")


def folder_finding(name: str, folder: Path) -> Finding:
    """Whether a folder can be written, and its free space. It need not exist yet."""
    parent = folder
    while not parent.exists():
        parent = parent.parent
    try:
        with tempfile.TemporaryFile(dir=parent):
            pass
    except OSError as error:
        return Finding("fail", name, f"{folder} cannot be written: {error.strerror}")
    free = shutil.disk_usage(parent).free / 2**30
    return Finding("ok" if free > 2 else "note", name, f"{folder} ({free:.0f} GiB free)")


def _experiments() -> Finding:
    try:
        registry = Registry()
        rows = sum(len(table.rows) for table in registry.tables.values())
        claims = len(registry.claims) + len(registry.own_claims)
        folders = ", ".join(map(str, registry.folders))
        return Finding("ok", "experiments", f"{rows} rows, {claims} claims in {folders}")
    except HarnessError as error:
        return Finding("fail", "experiments", str(error))


def _data(given: Path | None) -> Finding:
    named = named_data(given)
    if named is None:
        return Finding("note", "COCO data", "HARNESS_DATA is not set; the profiles tiny and small do not need it")
    from detector.data.coco.files import known_splits

    splits = known_splits(named)
    if not splits:
        return Finding("fail", "COCO data", f"{named} has no annotations/instances_*.json")
    return Finding("ok", "COCO data", f"{named}: {', '.join(splits)} (harness data verify {named} checks it)")


def _weights() -> list[Finding]:
    from detector.weights.find import URLS, weights_file

    findings = []
    for project, backbone in URLS:
        file = weights_file(project, backbone)
        text = str(file) if file else "not here; downloaded when first needed, or --weights FILE"
        findings.append(Finding("ok" if file else "note", f"{backbone} ({project})", text))
    return findings
