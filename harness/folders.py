"""Where things are: the checkout, experiments, runs and results."""

from __future__ import annotations

import errno
import os
import stat
from importlib.resources import files
from pathlib import Path

from detector.errors import UsageError
from detector.storage.reading import kind_of_file

VARIABLE = "HARNESS_EXPERIMENTS"
PARTS = ("recipes", "profiles")  # with the four tables, what makes a folder complete
OWN_PARTS = (*PARTS, "clusters")
TABLES = tuple(f"table{i}.yaml" for i in (1, 2, 3, 4))
BELONGS = (
    "tables (such as table5.yaml), ablations.yaml, claims.yaml, speeds.yaml, or .yaml files in recipes/, profiles/ or "
    "clusters/"
)


def experiments_folders(*, new: Path | None = None) -> tuple[Path, ...]:
    """Folders of experiments: your own, as $HARNESS_EXPERIMENTS lists them, and last the one with the paper's.

    $HARNESS_EXPERIMENTS names folders as PATH does; an empty name is skipped, and so is a folder named again. A
    complete folder (recipes, profiles and ``table1.yaml`` to ``table4.yaml``) replaces the installed one, wherever it
    stands in the list. Any other folder adds what it has to the paper's. new: a folder that may still be missing or
    empty, because its first file is about to be written.

    Raises UsageError for a name that is no folder, for a folder with nothing to add, for a file whose name does not end
    in .yaml, and for two complete folders.
    """
    named: dict[Path, Path] = {}
    for folder in (Path(name) for name in os.environ.get(VARIABLE, "").split(os.pathsep) if name):
        place = Path(os.path.realpath(folder))  # unlike Path.resolve, no error for a link to itself
        if new is not None and place == Path(os.path.realpath(new)) and not any(new.glob("**/*")):
            continue
        _check(folder)
        named.setdefault(place, folder)
    folders = list(named.values())
    complete = [folder for folder in folders if is_complete(folder)]
    if len(complete) > 1:
        raise UsageError(
            f"{VARIABLE} names two folders that each replace the installed experiments: {complete[0]} and "
            f"{complete[1]}. Name one of them; a folder that adds to it has only what is new."
        )
    own = tuple(folder for folder in folders if folder not in complete)
    return (*own, complete[0] if complete else _installed())


def experiments_folder() -> Path:
    """The folder with the paper's experiments: the installed one, or the one that replaces it."""
    return experiments_folders()[-1]


def is_complete(folder: Path) -> bool:
    """Whether a folder can stand for the installed experiments: it has recipes, profiles and all four tables."""
    return all((folder / name).is_file() for name in TABLES) and all(any(folder.glob(f"{p}/*.yaml")) for p in PARTS)


def _check(folder: Path) -> None:
    if not require_folder(VARIABLE, folder):
        raise UsageError(f"{VARIABLE} names {folder}, which does not exist. Separate folders by {os.pathsep!r}.")
    places = [folder, *(folder / part for part in OWN_PARTS)]
    if wrong := sorted(path for place in places for path in place.glob("*.yml")):
        raise UsageError(
            f"{wrong[0]} would not be read: files of experiments end in .yaml. {VARIABLE} names its folder."
        )
    if not any(path for place in places for path in place.glob("*.yaml")):
        raise UsageError(f"{VARIABLE} names {folder}, which has no experiments. What belongs there: {BELONGS}.")


def require_folder(variable: str, path: Path) -> bool:
    """Whether the folder that an environment variable names is there.

    Raises UsageError, naming the variable, for a file, for a link to nothing or to itself, and for a folder that cannot
    be read.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        if path.is_symlink():
            raise UsageError(f"{variable} names {path}, which is a link to nothing.") from None
        return False
    except OSError as error:
        what = "is a link that leads to itself" if error.errno == errno.ELOOP else f"cannot be used: {error.strerror}"
        raise UsageError(f"{variable} names {path}, which {what}.") from error
    if not stat.S_ISDIR(mode):
        what = "a file" if stat.S_ISREG(mode) else kind_of_file(mode)
        raise UsageError(f"{variable} names {path}, which is {what}, not a folder.")
    if not os.access(path, os.R_OK | os.X_OK):
        raise UsageError(f"{variable} names {path}, which you may not read.")
    return True


def named_folder(variable: str) -> Path | None:
    """The folder that an environment variable names, whether it is there yet or not; None where it is unset or empty.

    Raises as ``require_folder``.
    """
    name = os.environ.get(variable)
    if not name:
        return None
    require_folder(variable, Path(name))
    return Path(name)


def _installed() -> Path:
    return Path(str(files("experiments")))


def checkout() -> Path | None:
    """The folder of the sources that run; None for an installed package."""
    parent = _installed().parent
    return parent if (parent / "pyproject.toml").exists() else None


def project_folder() -> Path:
    """The checkout, where there is one; the working directory for an installed package."""
    return checkout() or Path.cwd()


def runs_folder() -> Path:
    """$HARNESS_RUNS, else ``runs`` in the project folder. Raises as ``require_folder``."""
    return (named_folder("HARNESS_RUNS") or project_folder() / "runs").absolute()


def results_folder() -> Path:
    """$HARNESS_RESULTS, else ``results`` in the project folder. Raises as ``require_folder``."""
    return (named_folder("HARNESS_RESULTS") or project_folder() / "results").absolute()
