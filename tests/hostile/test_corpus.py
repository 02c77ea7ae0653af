"""What the fuzzer found is answered rightly now, and the page says what was tried."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.hostile.counts import PAGE, page
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
