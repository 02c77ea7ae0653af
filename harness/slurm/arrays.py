"""From runs to job arrays: on which clusters, of which shapes, within the limits of the site."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from msgspec.structs import replace

from detector.errors import SchedulerError
from detector.runs.assignment import Assignment
from detector.runs.folder import RunDir
from harness.code.snapshot import snapshot_folder
from harness.registry.declarations import Execution
from harness.slurm.backend.limits import Limits, cut, never_starts, read_limits, room
from harness.slurm.backend.programs import own_name
from harness.slurm.backend.slurm import Slurm
from harness.slurm.batch.script import Array, ArrayPlan, Shape, job_name, shape_of
from harness.slurm.clusters import Cluster, for_job
from harness.slurm.queue import OVER
from harness.slurm.shares import Place, spread, throttles
from harness.slurm.submissions import Options, next_token, transport_folder

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Work:
    """Runs to submit. refs: by training id, the rows that each serves. options: of the command."""

    assignments: tuple[Assignment, ...]
    refs: Mapping[str, tuple[str, ...]]
    execution: Execution
    options: Options
    runs: Path


@dataclass(frozen=True)
class Site:
    """A cluster file, and what its Slurm says.

    name: the ClusterName; "" where Slurm was not asked. queued: jobs of this user there. arrays: of ours, by job id,
    how many elements are left; alone: those that are single jobs.
    """

    cluster: Cluster
    slurm: Slurm
    name: str = ""
    limits: Limits = field(default_factory=Limits)
    queued: int = 0
    arrays: Mapping[str, int] = field(default_factory=dict)
    alone: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Planned:
    """The arrays of some runs. held_back: runs that a limit keeps back, and why."""

    arrays: tuple[Array, ...]
    held_back: tuple[Assignment, ...] = ()
    why_held_back: tuple[str, ...] = ()


def ask_site(cluster: Cluster, runs: Path) -> Site:
    """What the Slurm of a cluster file says now. Raises SchedulerError where it does not answer."""
    slurm, me = Slurm(cluster.slurm_conf or ""), own_name()
    answers = slurm.look(runs, slurm.name, [me])
    if answers.failed:
        raise SchedulerError(f"{answers.failed} Nothing was submitted.")
    mine = [job for job in answers.jobs if job.user == me and job.state not in OVER]
    arrays: dict[str, int] = {}
    for job in mine:
        if job.token:
            arrays[job.base_id] = arrays.get(job.base_id, 0) + 1
    alone = frozenset(job.id for job in mine if "_" not in job.id)
    return Site(cluster, slurm, slurm.name, read_limits(slurm.text, me), len(mine), arrays, alone)


def plan_arrays(free: Sequence[Assignment], work: Work, sites: Sequence[Site], *, code: str) -> Planned:
    """One array per cluster and shape, in the order of the runs, within the limits. code: the snapshot's id.

    Writes nothing. Raises SchedulerError for jobs that would never start.
    """
    places = [
        Place(
            site.cluster.name, site.cluster.parallel, site.queued, room(site.cluster, site.limits, queued=site.queued)
        )
        for site in sites
    ]
    given = spread(free, places)
    arrays, held, why = list[Array](), list[Assignment](), list[str]()
    for site in sites:
        mine = given[site.cluster.name]
        # Where no cluster has room for more, the first says why.
        mine += [item for item in free if not any(item in some for some in given.values())] if site is sites[0] else []
        planned = _of_site(mine, work, site, code)
        arrays += planned.arrays
        held += planned.held_back
        why += planned.why_held_back
    return Planned(tuple(arrays), tuple(held), tuple(dict.fromkeys(why)))


def _of_site(mine: Sequence[Assignment], work: Work, site: Site, code: str) -> Planned:
    groups: dict[tuple[bytes, Shape], tuple[Cluster, list[Assignment]]] = {}
    for item in mine:
        only_evaluates = RunDir(Path(item.run_dir)).final.exists()
        cluster = for_job(site.cluster, work.refs[item.train.id], evaluation_only=only_evaluates)
        shape = shape_of(item, cluster, work.execution, evaluation_only=only_evaluates)
        groups.setdefault((msgspec.json.encode(cluster), shape), (cluster, []))[1].append(item)
    _require_that_they_start([(cluster, shape) for (_, shape), (cluster, _) in groups.items()], site)
    arrays, held, why, added = list[Array](), list[Assignment](), list[str](), 0
    used = set[str]()
    for (_, shape), (cluster, members) in groups.items():
        limit = cut(len(members), cluster, site.limits, queued=site.queued, added=added)
        first = 0
        for size in limit.sizes:
            some = members[first : first + size]
            arrays.append(_array(some, work, cluster, shape, site, code, used))
            first += size
        added += first
        held += members[first:]
        why += [limit.why] if limit.held else []
    return Planned(tuple(_throttled(arrays, site)), tuple(held), tuple(why))


def _require_that_they_start(jobs: Sequence[tuple[Cluster, Shape]], site: Site) -> None:
    problems = [text for cluster, shape in jobs for text in never_starts(cluster, shape, site.limits)]
    if problems:
        listed = " ".join(dict.fromkeys(problems))
        raise SchedulerError(
            f"On cluster {site.cluster.name!r} jobs would never start, so nothing was submitted. {listed} "
            "Change the cluster file."
        )


def _array(
    members: Sequence[Assignment], work: Work, cluster: Cluster, shape: Shape, site: Site, code: str, used: set[str]
) -> Array:
    prepared = tuple(
        replace(item, device="cuda" if shape.on_gpus else "cpu", max_requeues=cluster.max_requeues) for item in members
    )
    refs = tuple(work.refs[item.train.id] for item in members)
    # With the runs folder: a job of the same runs from another folder must have another token.
    content = [cluster, code, [item.train.id for item in members], str(work.runs.resolve()), site.name]
    token = next_token(work.runs, msgspec.json.encode(content), used)
    used.add(token)
    plan = ArrayPlan(
        token=token,
        cluster=cluster,
        shape=shape,
        names=tuple(job_name(names, item.train.seed) for names, item in zip(refs, members, strict=True)),
        run_folders=tuple(Path(item.run_dir) for item in members),
        folder=transport_folder(work.runs.absolute(), token),
        code=snapshot_folder(work.runs.absolute(), code),
        most_at_once=min(cluster.parallel, len(members)),
    )
    return Array(plan, prepared, refs, site.name)


def _throttled(arrays: Sequence[Array], site: Site) -> list[Array]:
    """The arrays with their shares of ``parallel`` beside what is in the queue already."""
    sizes = {array.token: len(array.members) for array in arrays}
    shares = throttles(site.cluster.parallel, {**site.arrays, **sizes})
    return [array.at_once(shares[array.token]) for array in arrays]


def share_parallel(site: Site, submitted: Mapping[str, int]) -> None:
    """Throttle the arrays that were there before, so that with the new ones no more than ``parallel`` run.

    submitted: the new arrays' sizes, by token. Where Slurm refuses, the arrays stay as they are.
    """
    if not site.arrays or not submitted:
        return
    shares = throttles(site.cluster.parallel, {**site.arrays, **submitted})
    for job in site.arrays.keys() - site.alone:
        try:
            site.slurm.throttle(job, shares[job])
        except SchedulerError as error:
            logger.warning("Array %s was not throttled: %s", job, error)
