"""The folder of pictures: whole, ours alone to replace, and its text injects nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from detector.errors import UsageError
from harness.figures.images.gallery import Gallery, Item, Section, claim_gallery, is_gallery, write_gallery

EVIL = '<script>alert(1)</script>" onload="x\x1b[31m\u202e\ud800'


def gallery(text: str) -> Gallery:
    item = Item(b"jpeg", 10, 20, text, text, [["a", text], [text, "b"]])
    return Gallery(text, [text], [Section(text, text, [item, item])])


def test_text_from_data_injects_nothing_into_the_page(tmp_path: Path) -> None:
    page = write_gallery(tmp_path / "out", gallery(EVIL)).read_text(encoding="utf-8")
    assert "<script" not in page
    assert 'onload="x' not in page
    assert not {"\x1b", "\u202e"} & set(page)
    assert page.count("&lt;script&gt;") == 13
    assert page == write_gallery(tmp_path / "again", gallery(EVIL)).read_text(encoding="utf-8")


def test_only_a_folder_of_ours_is_replaced_and_only_when_asked(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_gallery(claim_gallery(out, force=False), gallery("one"))
    with pytest.raises(UsageError, match="has the pictures of an earlier command.*--force"):
        claim_gallery(out, force=False)
    write_gallery(claim_gallery(out, force=True), gallery("two"))
    assert "<h1>two</h1>" in (out / "index.html").read_text()
    (out / "notes.txt").write_text("mine")
    assert not is_gallery(out)
    with pytest.raises(UsageError, match="holds other files"):
        claim_gallery(out, force=True)


@pytest.mark.parametrize("force", [False, True])
def test_a_page_of_somebody_else_a_link_and_a_file_are_never_replaced(tmp_path: Path, force: bool) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").write_text("<h1>mine</h1>")
    (tmp_path / "link").symlink_to(tmp_path / "site")
    (tmp_path / "file").write_text("mine")
    for name in ("site", "link", "file"):
        with pytest.raises(UsageError):
            claim_gallery(tmp_path / name, force=force)
    (tmp_path / "empty").mkdir()
    assert claim_gallery(tmp_path / "empty", force=force) == tmp_path / "empty"
