"""Command lines: unknown names, contradictions, absurd numbers and sizes, and variables of the environment."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from tests.hostile.case import Case, Expected, either, refused, right, told
from tests.hostile.coco import write_root
from tests.hostile.files import ALARM, SPECIAL
from tests.hostile.invariant import Action, command

# Command lines that need no files, and words of their refusals.
OPTIONS: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    ("plan tabel2", ("tabel2", "table2")),
    ("plan table2/L7", ("L7", "L6")),
    ("plan table2/", ("table2",)),
    ("plan /L6", ("table2",)),
    ("plan table2/L6/L6", ("L6/L6",)),
    ("plan ../table2", ("..", "table2")),
    ("plan table2 --profile tiney", ("tiney", "tiny")),
    ("plan table2 --profile ../tiny", ("../tiny",)),
    ("plan table2 --set nothing", ("nothing",)),
    ("plan table2 --set optimizer.rl=1", ("optimizer.rl",)),
    ("plan table2 --profil tiny", ("--profil",)),
    ("plan table2 tabel3", ("tabel3", "table3")),
    ("plan", ("target",)),
    ("plna table2", ("plna",)),
    ("table table2 --format pdf", ("pdf", "latex")),
    ("table table2 --source both", ("both", "local")),
    ("table table2 --format md --json", ("--format", "--json")),
    ("table nowhere", ("nowhere", "table2")),
    ("check table2 --profile nowhere", ("nowhere", "paper")),
    ("status nowhere", ("nowhere", "table2")),
    ("status all --profile nowhere", ("nowhere", "paper")),
    ("run table2/L6 --profile nowhere", ("nowhere", "paper")),
    ("run nowhere", ("nowhere", "table2")),
    ("run table2/L6 --profile tiny --cluster nowhere", ("nowhere",)),
    ("run table2/L6 --profile tiny --dry-run", ("--dry-run", "--cluster")),
    ("explain table2", ("table2",)),
    ("explain nowhere/L6", ("nowhere",)),
    ("show nowhere", ("nowhere",)),
    ("logs nowhere", ("nowhere",)),
    ("cancel nowhere", ("nowhere",)),
    ("compare table2/L6", ("B",)),
    ("compare table2/L6 table2/L7", ("L7",)),
    ("eval", ("row",)),
    ("eval table2/L6 --recipe dr-r50-1x --weights x.pt", ("--recipe",)),
    ("eval --recipe dr-r50-1x", ("--weights",)),
    ("eval --recipe dr-r50-1x --weights x.pt", ("--data",)),
    ("eval table2/L6 --profile tiny", ("harness run",)),
    ("eval table2/L6 --profile tiny --backend fast", ("--backend", "--weights")),
    ("score x.json --backend cocoeval", ("cocoeval", "pycocotools")),
    ("score nowhere.json", ("data",)),
    ("schema nothing", ("nothing", "table")),
    ("weights convert nowhere.pt --to detectron2 --out x.pt", ("nowhere.pt",)),
    ("weights show nowhere.pt", ("nowhere.pt",)),
    ("bundle import nowhere.zip", ("nowhere.zip",)),
    ("bundle export x.zip", ("no finished record",)),
    ("data synth", ("--out",)),
    ("data subset nowhere --out x", ("nowhere",)),
    ("data fix nowhere x", ("nowhere",)),
    ("data import nowhere --out x", ("nowhere",)),
    ("data import pascal nowhere --out x", ("nowhere",)),
    ("new table", ("",)),
    ("record table2/L6 --from-server nowhere.txt", ("",)),
    ("audit nowhere", ("nowhere",)),
    ("trace table2/L6 --profile nowhere", ("nowhere",)),
    ("detect nowhere.jpg --out x --profile nowhere", ("nowhere",)),
)
# Of a command line: what comes before, an option, and values that it must refuse by its name.
NUMBERS: Final[tuple[tuple[str, str, tuple[str, ...]], ...]] = (
    ("plan table2", "--seeds", ("0", "-1", "1001", "1000000000", "1e9", "1.5", "x", "", "٣x", "9" * 400)),
    ("plan table2", "--batch-size", ("0", "-8", "65537", "1e3", "nan", "9" * 5000)),
    ("plan table2", "--gpus", ("0xH100", "-1xH100", "H100", "8x", "8xNOWHERE", "1000000000000xH100", "x", "1.5xH100")),
    ("plan table2", "--budget", ("0gpuh", "-1gpuh", "nangpuh", "infgpuh", "1e400gpuh", "gpuh", "1", "x")),
    ("plan table2", "--wall-time", ("0h", "-1h", "nanh", "1e400h", "h", "x", "1:99", "9" * 400 + "h")),
    ("explain table2/L6", "--set", ("optimizer.lr=nan", "optimizer.lr=1e999", "schedule.milestones=[9, 5]")),
    ("eval table2/L6 --profile tiny", "--seed", ("-1", "1000", "5000000", "1e3", "x", "9" * 400)),
    ("data synth --out x", "--train", ("0", "-1", "1000000000000", "1e6", "9" * 400)),
    ("data synth --out x", "--test", ("0", "10000001")),
    ("data synth --out x", "--size", ("0", "1", "-96", "1000000000", "1e9", "9" * 400)),
    ("data synth --out x", "--classes", ("0", "13", "-1")),
    ("data synth --out x", "--seed", ("-1", "9" * 400, "1.5")),
    ("data subset root --out x", "--images", ("0", "-1", "1.5")),
    ("data subset root --out x", "--seed", ("-1", "9007199254740993", "x")),
    ("data subset root --out x", "--split", ("nowhere", "../val2017", "")),
    ("data import voc root --out x", "--val", ("-0.5", "2", "nan", "inf", "x")),
    ("detect a.jpg --out x", "--min-score", ("-0.1", "1.1", "nan", "inf", "x")),
    ("run table2/L6 --profile tiny --cluster example", "--wait", ("-1", "nan", "inf", "10081", "1e300")),
    ("run table2/L6 --profile tiny", "--seeds", ("0", "1001", "1e9")),
)
# Settings that no training can have, given by --set.
SETTINGS: Final = (
    "schedule.milestones=[80000, 60000]",
    "schedule.milestones=[-1]",
    "schedule.iterations=0",
    "schedule.iterations=-5",
    "schedule.iterations=1e18",
    "optimizer.batch_size=0",
    "optimizer.batch_size=1000000000000",
    "optimizer.momentum=2",
    "optimizer.lr=-1",
    "optimizer.lr=1e308",
    "model.anchor_scale=1e308",
    "model.anchor_scale=0",
    "model.fpn_levels=[]",
    "model.fpn_levels=[3, 200]",
    "model.fpn_channels=1000000000000",
    "model.head_convs=100000000",
    "model.scales_per_octave=1000000000",
    "model.aspect_ratios=[]",
    "model.aspect_ratios=[0]",
    "model.aspect_ratios=[1e308]",
    "test.max_detections=0",
    "test.score_threshold=nan",
    "loss.margin=nan",
)
VARIABLES: Final = ("HARNESS_RUNS", "HARNESS_RESULTS", "HARNESS_EXPERIMENTS", "HARNESS_CLUSTERS", "HARNESS_DATA")


def _line(text: str, *more: str) -> Callable[[Path], Action]:
    def given(folder: Path) -> Action:
        if "root" in text.split():
            write_root(folder)
        return command(*text.split(), *more)

    return given


def _variable(name: str, make: Callable[[Path], None] | str) -> Callable[[Path], Action]:
    """A command that uses the variable's folder, which is something else."""
    line = {
        "HARNESS_DATA": "eval --recipe dr-r50-1x --weights x.pt",
        "HARNESS_CLUSTERS": "run table2/L6 --profile tiny --dry-run --cluster mine",
        "HARNESS_RUNS": "status all --profile tiny",
    }.get(name, "table table2 --profile tiny")

    def given(folder: Path) -> Action:
        if callable(make):
            make(folder / "given")
        value = folder / "given" if callable(make) else make
        return command(*line.split(), **{name: value})

    return given


def _text(path: Path) -> None:
    path.write_text("text")


def _empty(path: Path) -> None:
    path.mkdir()


def _cases() -> Iterator[Case]:
    area = "options"
    for line, said in OPTIONS:
        yield Case(area, line, _line(line), refused(*filter(None, said)))
    for name, line in (("an empty target", "plan"), ("an empty row", "explain"), ("an empty file", "score")):
        yield Case(area, name, _line(line, ""), refused())
    for line in ("plan", "status", "explain", "table", "show", "compare table2/L6", "schema", "weights show"):
        yield Case(area, f"{line} of a name that acts", _line(line, ALARM), refused())
        yield Case(area, f"{line} of 100,000 letters", _line(line, "x" * 100_000), told())  # a path may not be so long
    yield Case(area, "a name of two lines", _line("plan", "table2\ntable3"), refused("table2"))
    yield Case(area, "a profile that acts", _line("plan table2 --profile", ALARM), refused())
    yield Case(area, "one path twice", _line("plan table2 --set loss.margin=1 --set loss.margin=2"), refused("margin"))
    yield Case(area, "tables as Markdown", _line("table table2 --profile tiny --format md"), right("| "))
    for name in VARIABLES:
        kinds = [("text", _text), ("an empty folder", _empty), *SPECIAL]
        for kind, make in kinds:
            where = f"{name} is {kind}"
            if kind in ("an empty folder", "a folder"):
                yield Case(area, where, _variable(name, make), either())
            else:
                # Runs or results that are not there are none.
                yield Case(area, where, _variable(name, make), Expected((0, 1, 2), (name,)))
        yield Case(area, f"{name} names nothing", _variable(name, "/nowhere/at/all"), either())
        yield Case(area, f"{name} is 5,000 letters", _variable(name, "x" * 5000), either())
        yield Case(area, f"{name} is empty", _variable(name, ""), either())
    area = "sizes"
    for line, option, values in NUMBERS:
        for value in values:
            shown = value if len(value) < 30 else f"{len(value):,} digits"
            yield Case(
                area,
                f"{line} {option} {shown!r}",
                _line(line, f"{option}={value}"),
                refused(*[option] * (option != "--split")),
            )
    for setting in SETTINGS:
        path = setting.partition("=")[0]
        yield Case(area, setting, _line("plan table2 --profile paper --set", setting), refused(path.rpartition(".")[2]))
    for name, value in (("JSON", "--json"), ("1,000 seeds", "--seeds=1000")):
        yield Case(area, f"a plan of {name}", _line("plan table2/L6 --profile tiny", value), right())
    yield Case(area, "synth of one image each", _synth, right(), writes=("x",))
    yield Case(area, "subset of more images than there are", _line("data subset root --out x --images 99"), told("6"))


def _synth(folder: Path) -> Action:
    return command("data", "synth", "--out", folder / "x", "--train", "1", "--test", "1", "--size", "32")


CASES: Final = tuple(_cases())
