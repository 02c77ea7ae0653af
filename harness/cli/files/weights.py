"""``harness weights``: what a weights file holds, and how to convert it to another project's format."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from detector.storage.outputs import claim_file
from harness.cli import completion
from harness.cli.options import AsJson, ForceOption, ProfileOption, print_json, put, say
from harness.units import MAX_SEEDS

if TYPE_CHECKING:
    from detector.weights.network import Format

app = typer.Typer(help="Show, convert and describe weights files of many projects.", no_args_is_help=True)

FileArgument = Annotated[
    Path,
    typer.Argument(
        metavar="FILE",
        help="A RetinaNet of maskrcnn-benchmark, Detectron2, torchvision or this project, or an ImageNet backbone of "
        "Caffe2 or torchvision. The format is recognised by the content.",
    ),
]


@app.command(short_help="Say what a weights file holds.")
def show(file: FileArgument, as_json: AsJson = False) -> None:
    """Say what a file holds: format, network, classes, unused parts, and the recipe that evaluates it."""
    from detector.weights.read import read_weights
    from harness.registry.load import Registry
    from harness.weights.describe import description, description_as_text

    weights = read_weights(file)
    if as_json:
        print_json(description(weights, Registry()))
    else:
        put(description_as_text(weights, Registry()))


@app.command(short_help="Write weights in another project's format.")
def convert(
    file: FileArgument,
    to: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="FORMAT",
            help="harness, maskrcnn-benchmark, detectron2, torchvision-retinanet, caffe2 "
            "or torchvision (the last two: backbones).",
            autocompletion=completion.choices(
                ("harness", "maskrcnn-benchmark", "detectron2", "torchvision-retinanet", "caffe2", "torchvision")
            ),
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The file to write.")],
    force: ForceOption = False,
) -> None:
    """Write a file's weights in another project's format, if that project has the same network."""
    from detector.weights.read import read_weights
    from detector.weights.write import write_weights

    claim_file(out, force=force)  # before a large file is read
    notes = write_weights(read_weights(file), cast("Format", to), out, overwrite=force)
    for note in notes:
        say(f"note: {note}")
    say(f"{out}  ({to}). What it is: harness weights show {out}")


@app.command(short_help="Write the model card of a trained run.")
def card(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN",
            help="A row such as table2/L6, an id or its first digits, a run's folder, or a record's file.",
            autocompletion=completion.rows,
        ),
    ],
    profile: ProfileOption = "paper",
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed",
            min=0,
            max=MAX_SEEDS - 1,
            help="Which of a row's runs. Default: the lowest seed there.",
            autocompletion=completion.seeds,
        ),
    ] = None,
    licence: Annotated[
        str,
        typer.Option(
            "--license",
            metavar="NAME",
            help="The licence that you give these weights, as hubs name it: apache-2.0, ...",
        ),
    ] = "unknown",
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="The file to write. Default: print the card.")
    ] = None,
    force: ForceOption = False,
) -> None:
    """Write a model card in Markdown, with the head that model hubs read.

    It has the metrics, the data, every setting with its source, limits, files with their sums, how to load them, and
    what is known of licences. Numbers of the paper stand beside it only where the profile compares with them.
    """
    from detector.storage.files import write_atomic
    from harness.report.card.facts import card_facts
    from harness.report.card.text import model_card

    if out is not None:
        claim_file(out, force=force)  # before weights are read
    text = model_card(card_facts(run, profile, seed), licence)
    if out is None:
        put(text, nl=False)
    else:
        write_atomic(out, text.encode())
        say(f"{out}  (model card)")
