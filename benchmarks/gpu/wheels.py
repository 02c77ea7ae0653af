"""Makes what a bare machine lacks importable, from a folder of wheels and without a network.

    python benchmarks/gpu/wheels.py SITE [WHEELS]

Only packages that the machine does not have go into the folder SITE: its own torch stays. Needs nothing but Python and
pip. Exit code 2, with the command that fetches them, where something is missing after that.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
FOR_TESTS = ("pytest",)


def required() -> list[str]:
    """What the project depends on, by name."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [re.split(r"[<>=!~; \[]", text)[0] for text in (*project["dependencies"], *FOR_TESTS)]


def is_installed(name: str) -> bool:
    """Whether a package of this name is found on the path."""
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


def unpack(wheels: Path, site: Path) -> None:
    """Install the wheels of packages that are not there yet into ``site``."""
    files = [str(file) for file in sorted(wheels.glob("*.whl")) if not is_installed(file.name.split("-")[0])]
    if files:
        command = ["pip", "install", "--quiet", "--no-index", "--no-deps", "--target", str(site), *files]
        subprocess.run([sys.executable, "-m", *command], check=True)


def main(site: Path, wheels: Path | None) -> int:
    """Unpack, and say what is still missing."""
    sys.path.insert(0, str(site))
    if wheels is not None:
        unpack(wheels, site)
    missing = [name for name in required() if not is_installed(name)]
    if not missing:
        return 0
    number = f"{sys.version_info.major}.{sys.version_info.minor}"
    print(f"Missing: {', '.join(missing)}. On a machine with a network, then --wheels WHEELS here:")
    print(f"  pip download --only-binary :all: --python-version {number} --dest WHEELS {' '.join(missing)}")
    print("  (remove the wheels of torch and of CUDA's libraries from WHEELS: this machine has its own)")
    return 2


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None))
