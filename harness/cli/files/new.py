"""``harness new``: commented files of one's own, and the command that comes next."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli import completion
from harness.cli.options import put

if TYPE_CHECKING:
    from harness.registry.load import Registry
    from harness.scaffold.places import Place

app = typer.Typer(
    help="Write a commented file of your own, ready to run.\n\n"
    "Tables, recipes and profiles go to the first folder of your own in HARNESS_EXPERIMENTS, else to ./my-experiments. "
    "Nothing is ever overwritten.",
    no_args_is_help=True,
)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Letters, digits and dashes.")]
OutOption = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", help="Folder of experiments to write to. Default: your own."),
]


@app.command()
def table(
    name: NameArgument,
    recipe: Annotated[
        str,
        typer.Option(metavar="RECIPE", help="The recipe that the rows start from.", autocompletion=completion.recipes),
    ] = "dr-r50-1x",
    out: OutOption = None,
) -> None:
    """Write a table of your own: a recipe, and what differs from it."""
    from harness.scaffold.experiments import new_table

    registry, place = _begin(out)
    path = new_table(registry, place.folder, name, recipe)
    _done(path, place, [f"harness plan {name} --profile tiny", f"harness run {name} --profile tiny"])


@app.command()
def recipe(
    name: NameArgument,
    extends: Annotated[
        str, typer.Option(metavar="RECIPE", help="The recipe that it differs from.", autocompletion=completion.recipes)
    ] = "dr-r50-1x",
    out: OutOption = None,
) -> None:
    """Write a recipe of your own: what differs from another one."""
    from harness.scaffold.experiments import new_recipe

    registry, place = _begin(out)
    path = new_recipe(registry, place.folder, name, extends)
    to = [] if out is None else ["--out", str(out)]
    table = f"table-{name}"
    _done(
        path,
        place,
        [shlex.join(["harness", "new", "table", table, "--recipe", name, *to]), f"harness explain {table}/base"],
    )


@app.command()
def profile(
    name: NameArgument,
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="ROOT", help="Your COCO root, which is looked at. Default: generated images."),
    ] = None,
    train_split: Annotated[
        str | None,
        typer.Option(
            metavar="SPLIT",
            help="To train on. Default: the one that is named train...",
            autocompletion=completion.splits,
        ),
    ] = None,
    test_split: Annotated[
        str | None,
        typer.Option(
            metavar="SPLIT",
            help="To test on. Default: the one that is named val... or test...",
            autocompletion=completion.splits,
        ),
    ] = None,
    gpu: Annotated[
        bool | None,
        typer.Option("--gpu/--cpu", help="ResNet-50, or a slim network. Default: ResNet-50 if a GPU is found."),
    ] = None,
    iterations: Annotated[
        int | None,
        typer.Option(min=3, max=1_000_000_000, metavar="N", help="Length of a training. Default: by images and time."),
    ] = None,
    out: OutOption = None,
) -> None:
    """Write a profile of your own: data, image size, network, schedule.

    With --data the data set is looked at first: its images, classes, boxes, and how many anchors match. The file says
    what was found and why each value was chosen; it trains as it is.
    """
    from harness.scaffold.experiments import new_data_profile, new_shapes_profile

    registry, place = _begin(out)
    if data is None:
        _only_with_data(train_split=train_split, test_split=test_split, gpu=gpu, iterations=iterations)
        path, root = new_shapes_profile(registry, place.folder, name), []
    else:
        from harness.machine import visible_gpus

        path, summary = new_data_profile(
            registry,
            place.folder,
            name,
            data,
            train_split=train_split,
            test_split=test_split,
            gpu=bool(visible_gpus()) if gpu is None else gpu,
            iterations=iterations,
        )
        root = ["--data", str(data)]
        for line in summary:
            put(line)
    options = shlex.join(["--profile", name, *root])
    _done(path, place, [f"harness run table2/L6 {options}", f"harness table table2 {options}"])


@app.command()
def cluster(
    name: NameArgument,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Default: HARNESS_CLUSTERS's folder, else ./clusters."),
    ] = None,
) -> None:
    """Write a Slurm cluster's file: partition, account, nodes, time."""
    from harness.scaffold.experiments import new_cluster
    from harness.scaffold.places import clusters_place
    from harness.slurm.clusters import known_clusters

    place = clusters_place(out)
    path = new_cluster(place.folder, name, set(known_clusters()))
    _done(path, place, [f"harness run table2 --cluster {name} --dry-run", f"harness doctor --cluster {name}"])


@app.command()
def loss(
    name: NameArgument,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the package's folder goes.")] = Path(),
) -> None:
    """Write a Python package with a loss of your own and its test."""
    from harness.scaffold.loss import new_loss, row_of
    from harness.scaffold.places import experiments_place

    folder, table = new_loss(out, name), f"table-{name}"
    where, place = shlex.quote(str(folder)), experiments_place(None)
    put(f"Wrote {folder}/: its pyproject.toml, the loss and its test. Install it, and test it:\n")
    put(
        f"  pip install -e {where}\n  python -m pytest {where}\n\nA table with a row of it, and its training:\n",
        exact=True,
    )
    put(f"  harness new table {table}")
    if place.export is not None:
        put(f"  {place.export}", exact=True)
    put(f"  cat >> {shlex.quote(str(place.folder / f'{table}.yaml'))} <<'END'\n{row_of(name)}\nEND", exact=True)
    put(f"  harness run {table}/mine --profile tiny")


def _begin(out: Path | None) -> tuple[Registry, Place]:
    """Everything that is declared already, and where the new file goes."""
    from harness.registry.load import Registry
    from harness.scaffold.places import experiments_place

    place = experiments_place(out)
    return Registry(new=place.folder), place


def _only_with_data(**options: object) -> None:
    """Raises UsageError for an option that speaks of a data set, where there is none."""
    from detector.errors import UsageError

    given = [name.replace("_", "-") for name, value in options.items() if value is not None]
    if given:
        raise UsageError(f"--{given[0]} goes with --data ROOT: without a data set the profile is of generated images.")


def _done(path: Path, place: Place, commands: list[str]) -> None:
    """Say what was written, and what to type next."""
    put(f"Wrote {path}. Next:\n")
    if place.export is not None:
        put(f"  {place.export}  # without it, commands do not see {place.folder}")
    for command in commands:
        put(f"  {command}")
