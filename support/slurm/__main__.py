"""Start a cluster to try things on by hand, print what its commands need, and keep it until Ctrl-C.

python -m support.slurm [--accounts] [--name test] [--folder FOLDER] [--set MaxArraySize=4 ...]
"""

from __future__ import annotations

import argparse
import signal
import tempfile
from contextlib import suppress
from pathlib import Path

from support.slurm.cluster import slurm_cluster
from support.slurm.plan import Accounts, ClusterPlan


def main() -> None:
    """Start, print, wait, end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--accounts", action="store_true", help="with slurmdbd and a MariaDB")
    parser.add_argument("--name", default="test", help="ClusterName")
    parser.add_argument("--folder", type=Path, help="for its files; must not exist")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of slurm.conf")
    arguments = parser.parse_args()
    plan = ClusterPlan(
        name=arguments.name,
        settings=dict(item.split("=", 1) for item in arguments.set),
        accounts=Accounts() if arguments.accounts else None,
    )
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="slurm-") as made:
        folder = arguments.folder or Path(made) / "c"
        with suppress(KeyboardInterrupt), slurm_cluster(folder, plan) as variables:
            print("".join(f"export {name}={value}\n" for name, value in variables.items()), flush=True)
            signal.pause()


if __name__ == "__main__":
    main()
