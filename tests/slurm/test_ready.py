"""What is said where no Slurm can be had: by the target, and by the continuous integration."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from support.slurm.accounts import accounts_commands, make_database
from support.slurm.errors import SlurmDidNotStart
from support.slurm.plan import Ports
from tests.slurm import ready

PROJECT = Path(__file__).resolve().parents[2]
FAKE_MAKE = """\
#!/bin/sh
case "$*" in
  test) echo "real COCO images: 7 tests ran with them, 0 were skipped without" ;;
  test-slow) echo "a browser: 3 tests ran with them, 0 were skipped without" ;;
  "--silent programs") echo "{programs}"; exit {browser} ;;
  "--silent slurm-ready") echo "{slurm}"; exit {ready} ;;
  test-slurm) echo "test-slurm ran"; exit {tests} ;;
  report) echo "report/index.html and 6 files of data beside it: 0.6 MB. Open it in a browser." ;;
esac
"""


def program(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(script)
    path.chmod(0o755)


def run_ci(
    tmp_path: Path,
    *,
    slurm: str = "slurm-wlm 1.2: 2 nodes idle",
    ready: int = 0,
    tests: int = 0,
    programs: str = "browser: 1",
    browser: int = 0,
) -> subprocess.CompletedProcess[str]:
    """.ci/run with a make that does nothing."""
    script = PROJECT / ".ci" / "run"
    if not script.exists():
        pytest.skip("not a checkout: there is no .ci/run")
    program(
        tmp_path, "make", FAKE_MAKE.format(slurm=slurm, ready=ready, tests=tests, programs=programs, browser=browser)
    )
    environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run([script], env=environment, capture_output=True, text=True, check=False, timeout=60)


def test_ci_goes_on_and_says_last_that_slurm_was_not_tested_where_there_is_none(tmp_path: Path) -> None:
    done = run_ci(tmp_path, slurm="no apt-get", ready=1)
    assert done.returncode == 0, done.stderr
    assert "test-slurm ran" not in done.stdout
    assert done.stdout.count("# SLURM WAS NOT TESTED: no apt-get #\n") == 2
    assert done.stdout.rstrip().splitlines()[-5:] == [
        "####################################",
        "#                                  #",
        "# SLURM WAS NOT TESTED: no apt-get #",
        "#                                  #",
        "####################################",
    ]


def test_ci_ends_with_the_slurm_it_tested_on(tmp_path: Path) -> None:
    done = run_ci(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "test-slurm ran" in done.stdout
    assert done.stdout.endswith("Slurm: tested on slurm-wlm 1.2: 2 nodes idle\n")
    *_, counts, report, programs, _ = done.stdout.splitlines()
    assert counts == "a browser: 3 tests ran with them, 0 were skipped without"
    assert report.startswith("report/index.html and 6 files of data beside it: 0.6 MB")
    assert programs == "browser: 1"


def test_ci_fails_where_a_slurm_test_fails(tmp_path: Path) -> None:
    assert run_ci(tmp_path, tests=2).returncode == 2


def test_ci_goes_on_and_says_at_its_end_what_was_tested_in_no_browser(tmp_path: Path) -> None:
    said = "browser: Chromium 1\nTHE TABLES WERE NOT COMPILED BY TEX: no apt-get"
    done = run_ci(tmp_path, programs=said, browser=1)
    assert done.returncode == 0, done.stderr
    assert "# THE TABLES WERE NOT COMPILED BY TEX: no apt-get #\n" in done.stdout
    assert "# browser: Chromium 1" not in done.stdout
    assert "make programs' failed without a word" in run_ci(tmp_path, programs="", browser=2).stdout


@pytest.mark.parametrize(
    ("apt_get", "said"),
    [
        (
            'echo "W: old" >&2; echo "E: Could not open lock file - open (13: Permission denied)" >&2; exit 100',
            "srun not installed; 'apt-get update': E: Could not open lock file - open (13: Permission denied)",
        ),
        ("exit 0", "srun not installed, though slurm-wlm and munge are"),
        (None, "srun not installed, and there is no apt-get to install slurm-wlm and munge"),
    ],
)
def test_ready_says_in_one_line_why_slurm_cannot_be_installed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    apt_get: str | None,
    said: str,
) -> None:
    if apt_get is not None:
        program(tmp_path, "apt-get", f"#!/bin/sh\n{apt_get}\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(ready, "missing_programs", lambda **_: ["srun"])
    assert ready.main() == 1
    assert capsys.readouterr().out == f"{said}\n"


def test_ready_says_which_daemon_ended_and_its_last_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, "munged", "#!/bin/sh\necho 'munged: Error: Key is insecure'\nexit 1\n")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(SlurmDidNotStart) as caught:
        ready.started_once()
    first = str(caught.value).splitlines()[0]
    assert first == "Slurm did not start: a daemon ended by itself; munged: Error: Key is insecure"


def test_databases_that_run_side_by_side_share_no_folder(tmp_path: Path) -> None:
    """A MariaDB that starts removes all temporary tables of its folder for them, also those of another server."""
    (database, _), _ = accounts_commands(tmp_path, Ports(1, (2, 3), 4, 5), {})
    options = dict(item.removeprefix("--").split("=", 1) for item in database[1:] if "=" in item)
    assert all(Path(options[name]).is_relative_to(tmp_path) for name in ("datadir", "tmpdir", "socket", "pid-file"))


def test_ready_says_why_there_is_no_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, "mariadb-install-db", "#!/bin/sh\necho 'ERROR: 1051  Unknown table'\nexit 1\n")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(SlurmDidNotStart, match=r"mariadb-install-db ended with code 1\nERROR: 1051  Unknown table"):
        make_database(tmp_path)


def test_ready_goes_on_and_says_so_where_no_accounts_can_be_kept(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")  # no apt-get
    monkeypatch.setattr(ready, "missing_programs", lambda *, accounts=False: ["slurmdbd"] if accounts else [])
    monkeypatch.setattr(ready, "started_once", lambda accounts: f"Slurm 1: 2 nodes idle{accounts or ''}")
    assert ready.main() == 0
    assert capsys.readouterr().out == (
        "Slurm 1: 2 nodes idle, WITHOUT ACCOUNTS (slurmdbd not installed, and there is no apt-get to install slurmdbd "
        "and mariadb-server): the tests of accounts and their limits are skipped\n"
    )
