"""What ``harness run`` and ``harness.run`` share: find what is missing of a target, and train it here or submit it."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from detector.errors import UsageError
from detector.runs.assignment import Assignment
from detector.runs.folder import RunDir
from detector.runs.job import Shapes
from harness.console.runs_view import runs_view
from harness.folders import refused_text
from harness.launch.assignments import Wanted, assignments
from harness.launch.inputs import begin_anew, require_same_inputs
from harness.launch.interrupts import terminate_is_interrupt
from harness.launch.lease import LeasedView, leasing
from harness.launch.local import Failure, View, make_slots, run_local
from harness.launch.prepare import plan_with_weights, prepare_data, refused, require_writable, say_use_of_weights
from harness.launch.stay import stay
from harness.launch.submit import DryRun, count_of_runs, dry_run
from harness.planning.data import named_data
from harness.planning.plan import Plan
from harness.planning.selection import Selection, Targets, missing, unusable
from harness.slurm.arrays import Work as SlurmWork
from harness.slurm.clusters import as_anywhere, find_clusters
from harness.slurm.submissions import Options
from harness.slurm.submit import Outcome, submit
from harness.status.observe import failed_ids
from harness.store.cancelled import forget_cancelled_run

Say = Callable[[str], None]
Show = Callable[[dict[str, str]], AbstractContextManager[View]]


@dataclass(frozen=True, kw_only=True)
class Request:
    """The options of ``harness run``. target: one, or several of them. overrides: PATH=VALUE each.

    fresh: move the folders of the target's runs aside first, and train all of them anew. cluster: a name, the path of a
    file, or several with commas between them. stay: with a cluster, submit again what a limit held back or what was
    lost, until all has ended.
    """

    target: Targets
    profile: str
    seeds: int = 1
    batch_size: int | None = None
    overrides: tuple[str, ...] = ()
    data: Path | None = None
    weights: Path | None = None
    retry_failed: bool = False
    fresh: bool = False
    cluster: str | None = None
    stay: bool = False
    dry_run: bool = False


@dataclass(frozen=True, repr=False, kw_only=True)
class RunResult:
    """What became of a request. Trainings are named by their id; ``plan`` says which rows and seed each serves.

    target: as it is typed on a command line, several with spaces between them.
    runs, data_root: the folders of the runs and of the data. done: had all their records before. trained: have them
    now. failed, stopped: ended without them; the same request goes on from their last checkpoints. left: missing, and
    not asked for (``retry_failed``). submission: what Slurm took; None where it was not asked. dry_run: what would be
    submitted; None where nobody wanted to know.
    """

    target: str
    plan: Plan
    runs: Path
    data_root: Path
    done: tuple[str, ...]
    trained: tuple[str, ...] = ()
    failed: tuple[Failure, ...] = ()
    stopped: tuple[Failure, ...] = ()
    left: tuple[str, ...] = ()
    submission: Outcome | None = None
    dry_run: DryRun | None = None

    @property
    def tables(self) -> str:
        """The tables of the targets, as they are typed on a command line; ``all`` for all of them."""
        return " ".join(dict.fromkeys(name.split("/")[0] for name in self.target.split()))

    @property
    def names(self) -> dict[str, str]:
        """By training id, what a person calls it: its rows and its seed."""
        return _names(self.plan, self.plan.trainings)

    def __repr__(self) -> str:
        """Counts on the first line, then one line for each job, failure and stopped run."""
        jobs = self.submission.submitted if self.submission is not None else ()
        skipped = next((part.skipped for part in (self.submission, self.dry_run) if part is not None), {})
        arrays = self.dry_run.arrays if self.dry_run is not None else ()
        counts = {
            "done before": len(self.done),
            "trained": len(self.trained),
            "failed": len(self.failed),
            "stopped": len(self.stopped),
            "left alone": len(self.left),
            "queued or running already": len(skipped),
            "submitted": sum(len(entry.runs) for entry, _ in jobs),
            "would be submitted": sum(len(array.members) for array in arrays),
        }
        said = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
        names = self.names
        return "\n".join(
            [
                f"{self.target}, profile {self.plan.profile.name}: {count_of_runs(len(names))}, {said}",
                *(f"  job {entry.job_id}: {count_of_runs(len(entry.runs))}, each on {shape}" for entry, shape in jobs),
                *(f"  failed: {names[item.train_id]}: {item.message}; log: {item.log}" for item in self.failed),
                *(f"  stopped: {names[item.train_id]}: {item.message}" for item in self.stopped),
            ]
        )


def run_target(request: Request, say: Say, show: Show = runs_view) -> RunResult:
    """Train, evaluate and record what is missing of a target; with a cluster, submit it and return at once.

    A run that fails is in the result. say: told what a person should know. show: shows the runs while they go on, given
    their names by training id. On KeyboardInterrupt the runs save and stop before it passes on.

    Raises:
        UsageError: an unknown name, an option that does not fit, or a finished run whose weights, annotations or
            images have changed since (``fresh`` trains it anew).
        DataError, WeightsError: what the runs need is not there or does not fit.
        PermissionError: the runs folder is another user's.
        SchedulerError: Slurm is not there, or refuses.
    """
    selection = Selection(request.target, request.profile, list(request.overrides), request.data, request.batch_size)
    clusters = find_clusters(request.cluster) if request.cluster is not None else ()
    if request.dry_run and not clusters:
        raise UsageError("--dry-run shows what --cluster NAME would submit. For runs here, see 'harness plan'.")
    if request.stay and (request.dry_run or not clusters):
        raise UsageError("--stay goes with --cluster NAME, and not with --dry-run: runs here are waited for anyway.")
    if request.fresh and (request.dry_run or request.retry_failed):
        raise UsageError(
            "--fresh moves the folders of all runs aside; it goes with neither --dry-run nor --retry-failed."
        )
    root = selection.data_root()
    planned, weights = _planned(selection, request, root, say)
    if request.fresh:
        require_writable(selection.store.runs, *(selection.store.run_dir(item).root for item in planned.trainings))
        prepare_data(planned.data, root, say)  # before anything is moved
        begin_anew(planned, selection.store, say)
    else:
        require_same_inputs(planned, selection.store, root, request.weights, _command(request, selection))
    todo = missing(planned, selection.store)
    broken = unusable(planned, selection.store)
    done = tuple(train_id for train_id in planned.trainings if train_id not in (*todo, *broken))
    counts = f"{count_of_runs(len(planned.trainings))}, {len(done)} done, {len(todo)} to do"
    counts += f", {len(broken)} with a record that cannot be used" if broken else ""
    say(f"{selection.target}, profile {request.profile}: {counts}.")
    asked = _failed_before(selection, planned, todo, say) if request.retry_failed and todo else todo
    left = tuple(train_id for train_id in todo if train_id not in asked)
    result = RunResult(
        target=selection.target,
        plan=planned,
        runs=selection.store.runs,
        data_root=root,
        done=done,
        failed=tuple(Failure(item, why, selection.store.run_dir(item).log) for item, why in broken.items()),
        left=left,
    )
    if asked and not request.dry_run:
        result, asked = _permitted(result, asked, here=not clusters)
    if not asked:
        return result
    work = _Work(selection, planned, tuple(asked), root, weights)
    if not clusters:
        return _with_failures(result, asked, _run_here(work, say, show))
    to_submit = work.for_slurm(request)
    if request.dry_run:
        return replace(result, dry_run=dry_run(to_submit, clusters, say))
    prepare_data(planned.data, root, say)
    outcome = submit(to_submit, clusters)
    if not request.stay:
        return replace(result, submission=outcome)
    return _with_failures(
        result, asked, stay(to_submit, clusters, outcome, planned, selection.store, say, names=result.names)
    )


def _planned(selection: Selection, request: Request, root: Path, say: Say) -> tuple[Plan, dict[Wanted, Path]]:
    """The plan, and the weights that its missing trainings start from; from scratch where the profile allows it."""
    planned = selection.plan(request.seeds, root=root)
    for option in _departures(request):
        say(f"With {option} these runs are not the paper's and fill no table's cell.")
    if request.weights is not None:
        todo = planned.trainings if request.fresh else missing(planned, selection.store)
        say_use_of_weights(planned, todo, request.weights, say)
    # A dry run downloads nothing; only where missing weights change what is trained must it look for them.
    needed = not request.dry_run or request.weights is not None or selection.profile.without_weights == "from_scratch"
    if not needed or not (request.fresh or missing(planned, selection.store)):
        return planned, {}
    return plan_with_weights(selection, planned, request.seeds, root, request.weights, say)


def _command(request: Request, selection: Selection) -> str:
    """The same command as words of a shell."""
    words = ["harness", "run", *selection.targets, "--profile", request.profile]
    words += ["--seeds", str(request.seeds)] if request.seeds > 1 else []
    words += ["--batch-size", str(request.batch_size)] if request.batch_size is not None else []
    words += [word for override in request.overrides for word in ("--set", override)]
    named = {"--data": request.data, "--weights": request.weights, "--cluster": request.cluster}
    return shlex.join([*words, *(word for name, value in named.items() if value for word in (name, str(value)))])


def _departures(request: Request) -> Iterable[str]:
    if request.batch_size is not None:
        yield f"--batch-size {request.batch_size}"
    if request.overrides:
        yield f"--set ({', '.join(request.overrides)})"


def _failed_before(selection: Selection, planned: Plan, todo: list[str], say: Say) -> list[str]:
    failed = failed_ids(planned, selection.store)
    asked = [train_id for train_id in todo if train_id in failed]
    say(f"--retry-failed: {len(asked)} of them failed or were lost, and are run again; the others are left alone.")
    return asked


@dataclass(frozen=True)
class _Work:
    """The trainings to run, and what they need."""

    selection: Selection
    plan: Plan
    asked: tuple[str, ...]
    root: Path
    weights: Mapping[Wanted, Path]

    def assignments(self) -> list[Assignment]:
        notes, weights = self.selection.notes(self.plan), dict(self.weights)
        every = assignments(self.plan, self.selection.store, root=self.root, weights=weights, notes=notes)
        return [item for item in every if item.train.id in self.asked]

    def for_slurm(self, request: Request) -> SlurmWork:
        """The same for a submission, which keeps the command's options. A path is another one in another folder."""
        data = None if isinstance(self.plan.data, Shapes) else named_data(request.data)
        return SlurmWork(
            assignments=tuple(self.assignments()),
            refs={train_id: tuple(self.plan.refs_of(train_id)) for train_id in self.asked},
            execution=self.selection.profile.execution,
            options=Options(
                profile=request.profile,
                cluster=as_anywhere(request.cluster or ""),
                overrides=request.overrides,
                batch_size=request.batch_size,
                data=None if data is None else str(data.absolute()),
                weights=None if request.weights is None else str(request.weights.absolute()),
            ),
            runs=self.selection.store.runs,
        )


def _run_here(work: _Work, say: Say, show: Show) -> list[Failure]:
    """Train on this machine's GPUs or CPU cores."""
    try:
        with terminate_is_interrupt(), leasing(work.selection.store.runs, work.asked) as ended:
            prepare_data(work.plan.data, work.root, say)
            jobs = work.assignments()
            slots = make_slots(work.selection.profile.execution, runs=len(jobs))
            gpus = len(slots[0].gpus)
            where = f"on {gpus} GPU{'s' if gpus > 1 else ''} each" if gpus else "on the CPU"
            say(f"{len(slots)} at a time, {where}; in {work.selection.store.runs}")
            with show(_names(work.plan, work.asked)) as view:
                return run_local(jobs, slots, LeasedView(view, ended))
    except KeyboardInterrupt:
        say("Interrupted; finished runs and checkpoints are kept. The same command goes on from there.")
        raise


def _permitted(result: RunResult, asked: list[str], *, here: bool) -> tuple[RunResult, list[str]]:
    """What may be started, and the result with a failure for each run here whose folder is another user's."""
    require_writable(result.runs)
    found = {item: path for item in asked if here and (path := refused(RunDir(result.runs / item)))}
    failures = (
        Failure(item, f"{path}: permission denied. {refused_text(path)}", RunDir(result.runs / item).log)
        for item, path in found.items()
    )
    left = [item for item in asked if item not in found]
    for item in left:
        forget_cancelled_run(RunDir(result.runs / item))
    return replace(result, failed=(*result.failed, *failures)), left


def _with_failures(result: RunResult, asked: list[str], failures: list[Failure]) -> RunResult:
    unfinished = {failure.train_id for failure in (*result.failed, *failures)}
    return replace(
        result,
        trained=tuple(train_id for train_id in asked if train_id not in unfinished),
        failed=(*result.failed, *(failure for failure in failures if not failure.stopped)),
        stopped=tuple(failure for failure in failures if failure.stopped),
    )


def _names(planned: Plan, train_ids: Iterable[str]) -> dict[str, str]:
    return {item: f"{' = '.join(planned.refs_of(item))}, seed {planned.trainings[item].seed}" for item in train_ids}
