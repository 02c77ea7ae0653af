"""What the shell offers for arguments and options that have choices. Imports what is slow only when it is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable


def choices(names: Iterable[str]) -> Callable[[str], list[str]]:
    """Offers these names, where they begin as what was typed."""
    known = tuple(names)
    return lambda incomplete: _beginning(known, incomplete)


def several(names: Iterable[str]) -> Callable[[str], list[str]]:
    """Offers these names for the last of a list with commas; none that it has already."""
    known = tuple(names)

    def offered(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        given = before.split(",")
        return [f"{before}{comma}{name}" for name in _beginning(known, last) if name not in given]

    return offered


def targets(incomplete: str) -> list[str]:
    """``all``, tables and rows."""
    from harness.registry.load import Registry

    registry = Registry()
    return _beginning(["all", *registry.tables, *_refs(registry.tables.values())], incomplete)


def rows(incomplete: str) -> list[str]:
    """Rows that this project trains."""
    from harness.registry.load import Registry

    return _beginning(_refs(Registry().tables.values()), incomplete)


def rows_and_recipes(incomplete: str) -> list[str]:
    """Rows, and the recipes that they start from."""
    return [*rows(incomplete), *recipes(incomplete)]


def profiles(incomplete: str) -> list[str]:
    """Names of profiles."""
    from harness.registry.load import Registry

    return _beginning(Registry().profiles, incomplete)


def recipes(incomplete: str) -> list[str]:
    """Names of recipes."""
    from harness.registry.load import Registry

    return _beginning(Registry().recipes, incomplete)


def clusters(incomplete: str) -> list[str]:
    """Names of Slurm clusters that have a file."""
    from harness.slurm.clusters import known_clusters

    return _beginning(known_clusters(), incomplete)


def metrics(incomplete: str) -> list[str]:
    """What records can have: COCO's metrics and the mean scores."""
    from detector.runs.record import COCO_METRICS, SCORE_METRICS

    return _beginning([*COCO_METRICS, *SCORE_METRICS], incomplete)


def seeds(incomplete: str) -> list[str]:
    """Those of finished records, of any row and profile."""
    from harness.folders import results_folder, runs_folder
    from harness.store.records import Store

    found = {record.job.train.seed for record in Store(runs_folder(), results_folder()).records}
    return _beginning([str(seed) for seed in sorted(found)], incomplete)


def splits(incomplete: str) -> list[str]:
    """COCO's, and those of the data set that HARNESS_DATA names."""
    from detector.data.coco.files import known_splits
    from harness.folders import named_folder

    root = named_folder("HARNESS_DATA")
    own = known_splits(root) if root is not None else []
    return _beginning(dict.fromkeys([*own, "train2017", "val2017", "test-dev2017"]), incomplete)


def settings(incomplete: str) -> list[str]:
    """``PATH=`` of every setting that some recipe has and, after ``loss.name=``, the losses."""
    from harness.registry.load import Registry
    from harness.registry.resolve import recipe

    if incomplete.startswith("loss.name="):
        from drloss.plugins import plugins

        losses = ["dr", "focal", "cross_entropy", *(plugin.name for plugin in plugins() if plugin.spec)]
        return _beginning([f"loss.name={name}" for name in losses], incomplete)
    registry = Registry()
    paths = {path for name in registry.recipes for path in recipe(registry, name).origins}
    return [f"{path}=" for path in _beginning(sorted(paths), incomplete)]


def gpus(incomplete: str) -> list[str]:
    """``1xKIND`` and ``8xKIND`` of the GPUs whose speed is known."""
    from harness.registry.load import Registry

    kinds = [kind.name for kind in Registry().speeds.gpus]
    count = incomplete.partition("x")[0]
    counts = [count] if count.isdigit() else ["1", "8"]
    return _beginning([f"{one}x{kind}" for one in counts for kind in kinds], incomplete)


def _refs(tables: Iterable[object]) -> list[str]:
    from harness.registry.declarations import Table

    return [ref for table in tables if isinstance(table, Table) for ref in table.refs()]


def _beginning(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]
