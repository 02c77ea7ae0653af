"""Where things are, the checkout, experiments, runs and results, and who may write there."""

from __future__ import annotations

import errno
import grp
import os
import pwd
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from shlex import quote
from typing import Any

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


def may_write(path: Path) -> bool:
    """Whether this process may write the file, or into the folder; of a path that is not there, its nearest folder."""
    place = next((place for place in (path, *path.parents) if _is_seen(place)), path)
    return os.access(place, os.W_OK | (os.X_OK if place.is_dir() else 0), effective_ids=_BY_EFFECTIVE_ID)


def may_read(folder: Path) -> bool:
    """Whether this process may see what a folder holds."""
    return os.access(folder, os.R_OK | os.X_OK, effective_ids=_BY_EFFECTIVE_ID)


def refused_text(path: Path) -> str:
    """Why a path may not be used: whose it is, and what to do about that. A sentence or two."""
    places = [place for place in (path.absolute(), *path.absolute().parents) if _is_seen(place)]
    refused = (place for place in places if not may_write(place) or (place.is_dir() and not may_read(place)))
    place = next(refused, places[0])
    found = place.lstat()
    if os.statvfs(place).f_flag & os.ST_RDONLY:
        return f"{place} is on a disk that is mounted read-only.{elsewhere_text(place)}"
    if found.st_uid == os.geteuid():
        return f"{place} is yours: chmod -R u+rwX {quote(str(place))}"
    owner, group = _name(pwd.getpwuid, found.st_uid), _name(grp.getgrgid, found.st_gid)
    shared = found.st_gid in (os.getegid(), *os.getgroups())
    chgrp = "" if shared else f"chgrp -R GROUP {quote(str(place))} (a group that you share), then "
    own = next((f", or use a folder of your own: {name}=DIR" for name in _of_variable(place)), "")
    return (
        f"{place} belongs to {owner} (group {group}). Ask {owner} for: {chgrp}chmod -R g+rwX {quote(str(place))}{own}"
    )


_BY_EFFECTIVE_ID = os.access in os.supports_effective_ids


def _is_seen(place: Path) -> bool:
    try:
        place.lstat()
    except OSError:
        return False
    return True


def _name(find: Callable[[int], Any], number: int) -> str:
    try:
        return str(find(number)[0])
    except KeyError:  # a number without a name, as in some containers
        return str(number)


def elsewhere_text(path: Path) -> str:
    """`` For another folder: HARNESS_RUNS=DIR``, for the end of a sentence; nothing for a path of no variable's."""
    return next((f" For a folder elsewhere: {name}=DIR harness ..." for name in _of_variable(path.absolute())), "")


def _of_variable(place: Path) -> Iterator[str]:
    """The environment variable that names the folder which the place is in, or which is to be made in it."""
    folders: dict[str, Callable[[], Path | None]] = {
        "HARNESS_RUNS": runs_folder,
        "HARNESS_RESULTS": results_folder,
        "HARNESS_DATA": lambda: named_folder("HARNESS_DATA"),
    }
    for variable, find in folders.items():
        with suppress(UsageError):
            folder = find()
            if folder is not None and (place == folder or folder in place.parents or place in folder.parents):
                yield variable


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
