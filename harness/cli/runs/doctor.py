"""``harness doctor``: whether this machine, or a cluster, has what runs need."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from detector.errors import UsageError
from harness.cli.options import AsJson, CheckedClusterOption, DataOption, WaitOption, print_json, put, say

if TYPE_CHECKING:
    from harness.doctor.machine import Finding


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command(short_help="Check this machine, or a cluster, for what runs need.")(doctor)


def doctor(
    data: DataOption = None,
    cluster: CheckedClusterOption = None,
    wait: WaitOption = None,
    as_json: AsJson = False,
) -> None:
    """Check this machine: versions, cores, GPUs, folders, data, weights. Exits with 1 if a needed check fails.

    With --cluster: check that cluster instead, with one job of a few minutes on at most two nodes.
    """
    from harness.doctor.machine import examine

    if cluster is not None:
        findings = _examine_cluster(cluster, data, wait)
    elif wait is not None:
        raise UsageError("--wait goes with --cluster NAME: how long the job of the check may wait in the queue.")
    else:
        findings = examine(data)
    if as_json:
        print_json(findings)
    else:
        width = max(len(finding.name) for finding in findings)
        for finding in findings:
            text = finding.text.replace("\n", f"\n{'':{width + 8}}")
            put(f"{finding.state:5} {finding.name:{width}}  {text}")
    if any(finding.state == "fail" for finding in findings):
        raise typer.Exit(1)


def _examine_cluster(name: str, data: Path | None, wait: float | None) -> list[Finding]:
    """Check a cluster, saying on stderr what it waits for. Ctrl-C cancels the job."""
    from harness.doctor.cluster import DEFAULT_WAIT_MINUTES, examine_cluster
    from harness.slurm.clusters import find_cluster

    try:
        minutes = DEFAULT_WAIT_MINUTES if wait is None else wait
        return examine_cluster(find_cluster(name), data, wait_minutes=minutes, say=say)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
