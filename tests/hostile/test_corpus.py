"""What the fuzzer found is answered rightly now, and the page says what was tried."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

from tests.hostile.counts import HEAD, PAGE, page, section
from tests.hostile.fuzz import CORPUS
from tests.hostile.invariant import BrokenInvariantError, answer_of
from tests.hostile.readers import READERS, Reader

FOUND = [(reader, path) for reader in READERS for path in sorted((CORPUS / reader.name).glob("*"))]


@pytest.mark.filterwarnings("ignore")  # of Pillow and torch, on what they read
@pytest.mark.parametrize(
    ("reader", "path"), [pytest.param(*pair, id=f"{pair[0].name}-{pair[1].name}") for pair in FOUND]
)
def test_what_the_fuzzer_found_is_answered_rightly(reader: Reader, path: Path, tmp_path: Path) -> None:
    try:
        answer_of(lambda: reader.read(tmp_path, path.read_bytes()))
    except BrokenInvariantError as error:
        pytest.fail(f"{reader.name}: {error}")


def test_the_page_is_what_the_counts_say() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text == page(text), "python -m tests.hostile.counts"


def test_the_section_stays_when_the_rest_of_the_page_is_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = import_module("benchmarks.faults.report")  # no test depends on benchmarks but this one on its page
    for name in ("PAGE", "NUMBERS"):
        monkeypatch.setattr(report, name, tmp_path / name)
    monkeypatch.setattr(report, "PROJECT", tmp_path)
    (tmp_path / "PAGE").write_text(page("# old\n") + "\n## Bad input\n\nmore of it\n", encoding="utf-8")

    report.write_report([])

    text = (tmp_path / "PAGE").read_text(encoding="utf-8")
    assert text.startswith("# What a fault does")
    assert "# old" not in text
    assert text.partition(HEAD)[1:] == (HEAD, section().removeprefix(HEAD) + "\n## Bad input\n\nmore of it\n")
