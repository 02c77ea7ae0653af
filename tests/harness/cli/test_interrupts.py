"""Ctrl-C in the first second of a command: exit code 130, one line at most. And SIGTERM: 143."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from harness.cli import interrupts

# Sends the signal, the first argument, when the module is looked for whose name is the second; then runs the command.
INTERRUPTED = """
import os, signal, sys

number, module = int(sys.argv.pop(1)), sys.argv.pop(1)

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == module:
            os.kill(os.getpid(), number)

sys.meta_path.insert(0, Finder())
from harness.cli import main
main()
"""


def python(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the code as from a terminal: where the tests run in the background, shells have SIGINT ignored."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


@pytest.mark.usefixtures("empty_folders")
@pytest.mark.parametrize(
    ("module", "command"),
    [
        ("typer", ("list",)),
        ("harness.cli.runs.trace", ("list",)),
        ("yaml", ("table", "all")),
        ("harness.launch.run", ("run", "table2/L6", "--profile", "tiny")),
        ("numpy", ("score", "x.json", "--data", ".")),
        ("torch", ("doctor",)),
        ("torch._C", ("weights", "show", "x.pth")),
    ],
)
def test_an_interruption_amid_an_import_is_silent(module: str, command: tuple[str, ...]) -> None:
    done = python(INTERRUPTED, str(int(signal.SIGINT)), module, *command)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


@pytest.mark.usefixtures("empty_folders")
def test_a_command_that_trains_nothing_ends_at_once_when_it_is_asked_to() -> None:
    """A shell gives its end as 143."""
    done = python(INTERRUPTED, str(int(signal.SIGTERM)), "yaml", "table", "all")
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGTERM, "", "")


def test_an_interruption_of_work_is_the_commands_to_answer() -> None:
    code = "import signal; from harness.cli import interrupts; interrupts.run(lambda: signal.raise_signal(2))"
    done = python(code)
    assert (done.returncode, done.stderr) == (130, "")


def test_the_interruption_of_a_process_with_children_is_raised_also_amid_an_import(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text("import signal; signal.raise_signal(2)")
    code = (
        "import subprocess, sys; from harness.cli import interrupts\n"
        "def work():\n"
        "    child = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE)\n"
        "    try:\n"
        "        import slow\n"
        "    finally:\n"
        "        child.communicate(b'x'); print('child', child.returncode)\n"
        "interrupts.run(work)"
    )
    done = python(code, PYTHONPATH=os.pathsep.join([str(tmp_path), *filter(None, sys.path)]))
    assert (done.returncode, done.stdout) == (130, "child 0\n"), done.stderr


def test_listening_leaves_the_handlers_of_others_and_other_threads_alone() -> None:
    before = signal.getsignal(signal.SIGINT)
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        interrupts.listen()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        signal.signal(signal.SIGINT, signal.default_int_handler)
        thread = threading.Thread(target=interrupts.listen)
        thread.start()
        thread.join()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
