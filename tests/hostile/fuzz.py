"""The coverage-guided fuzzer: ``python -m tests.hostile.fuzz --minutes 10`` (``make fuzz``).

Each reader gets an equal share of the time, in a process of its own, two at a time. It begins with the good documents
and with tests/hostile/corpus, which the tests replay. What it finds goes to .fuzz/<reader>/: new inputs that reach new
lines, and in .fuzz/crashes/<reader>/ one input for each place where something else than a HarnessError left the reader.
The counts go to tests/hostile/fuzzed.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Final

PROJECT: Final = Path(__file__).resolve().parents[2]
CORPUS: Final = Path(__file__).with_name("corpus")
COUNTS: Final = Path(__file__).with_name("fuzzed.json")
FOUND: Final = PROJECT / ".fuzz"
LONGEST: Final = 1 << 18  # bytes of an input


def main() -> int:
    """Fuzz all readers, or with ``--reader`` one in this process. Returns 1 where anything was found."""
    parser = argparse.ArgumentParser(description="Fuzz every reader.")
    parser.add_argument("--minutes", type=float, default=10.0, help="for all readers together")
    parser.add_argument("--reader", help="only this one, in this process")
    given = parser.parse_args()
    if given.reader is not None:
        _fuzz(given.reader, round(60 * given.minutes))
        return 0
    from tests.hostile.readers import READERS

    names = [reader.name for reader in READERS]
    share = 2 * given.minutes / len(names)
    with ThreadPoolExecutor(2) as pool:
        counts = dict(zip(names, pool.map(lambda name: _in_process(name, share), names), strict=True))
    COUNTS.write_text(json.dumps(counts, indent=2) + "\n")
    for name, (inputs, crashes) in counts.items():
        print(f"{name:12} {inputs:9,} inputs, {crashes} failures")
    return int(any(crashes for _, crashes in counts.values()))


def _in_process(name: str, minutes: float) -> tuple[int, int]:
    """Inputs that were tried, and failures that were found."""
    command = [sys.executable, "-m", "tests.hostile.fuzz", "--reader", name, "--minutes", str(minutes)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False, cwd=PROJECT)
    units = re.findall(r"stat::number_of_executed_units: (\d+)", done.stderr)
    if not units:
        raise SystemExit(f"{name}: the fuzzer ended without its counts:\n{done.stderr[-3000:]}")
    return int(units[-1]), len(list((FOUND / "crashes" / name).glob("*")))


def _fuzz(name: str, seconds: int) -> None:
    import atheris

    with atheris.instrument_imports(include=["harness", "detector", "drloss", "yaml"]):
        from tests.hostile.invariant import BrokenInvariantError, answer_of
        from tests.hostile.mutate import mutated
        from tests.hostile.readers import READERS

    (reader,) = [reader for reader in READERS if reader.name == name]
    new, old, crashes = FOUND / name, CORPUS / name, FOUND / "crashes" / name
    for folder in (new, crashes):
        folder.mkdir(parents=True, exist_ok=True)
    for document in reader.good():
        (new / hashlib.sha256(document).hexdigest()[:16]).write_bytes(document)
    folder = Path(tempfile.mkdtemp())

    def one(data: bytes) -> None:
        try:
            answer_of(lambda: reader.read(folder, data))
        except BrokenInvariantError as error:
            place = re.sub(r": .*", "", str(error), flags=re.DOTALL)
            (crashes / hashlib.sha256(place.encode()).hexdigest()[:16]).write_bytes(data)

    def other(data: bytes, most: int, seed: int) -> bytes:
        draw = Random(seed)
        changed = mutated(data, reader.kind, draw) if draw.random() < 0.5 else atheris.Mutate(data, most)
        return bytes(changed[:most])

    options = [f"-max_total_time={seconds}", f"-max_len={LONGEST}", "-timeout=0", "-print_final_stats=1"]
    folders = [str(new), *([str(old)] if old.is_dir() else [])]
    atheris.Setup([sys.argv[0], *options, "-rss_limit_mb=4096", *folders], one, custom_mutator=other)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
