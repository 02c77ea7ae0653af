"""The folder of pictures: whole, ours alone to replace, and its text injects nothing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from detector.errors import DataError, UsageError
from harness.figures.images.gallery import Gallery, Item, Section, claim_gallery, is_gallery, write_gallery

EVIL = '<script>alert(1)</script>" onload="x\x1b[31m\u202e\ud800'


def gallery(text: str, *counts: int) -> Gallery:
    """counts: pictures of each section."""
    item = Item(b"jpeg", 10, 20, text, text, [["a", text], [text, "b"]])
    return Gallery(text, [text], [Section(text, text, [lambda: item] * count) for count in counts or (2,)])


def test_text_from_data_injects_nothing_into_the_page(tmp_path: Path) -> None:
    page = write_gallery(tmp_path / "out", gallery(EVIL)).page.read_text(encoding="utf-8")
    assert "<script" not in page
    assert 'onload="x' not in page
    assert not {"\x1b", "\u202e"} & set(page)
    assert page.count("&lt;script&gt;") == 13
    assert page == write_gallery(tmp_path / "again", gallery(EVIL)).page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("counts", "pages"),
    [((0,), [0]), ((3, 3), [6]), ((60, 0), [60]), ((60, 1), [60, 1]), ((50, 80), [60, 60, 10])],
)
def test_many_pictures_have_pages_of_sixty(tmp_path: Path, counts: tuple[int, ...], pages: list[int]) -> None:
    out = write_gallery(tmp_path / "out", gallery("words", *counts)).page.parent
    names = ["index.html", *(f"page-{number}.html" for number in range(2, len(pages) + 1))]
    assert sorted(path.name for path in out.glob("*.html")) == sorted(names)
    texts = [(out / name).read_text() for name in names]
    assert [text.count("<img") for text in texts] == pages
    shown = [name for text in texts for name in re.findall(r'src="(\d+\.jpg)"', text)]
    assert shown == sorted(path.name for path in out.glob("*.jpg"))
    for text in texts:  # each page leads to all others
        others = set(re.findall(r'href="([^"]+\.html)"', text))
        assert others == (set(names) - {names[texts.index(text)]} if len(names) > 1 else set())
    if pages == [60, 60, 10]:
        assert texts[0].count("<h2>words</h2>") == 2
        assert texts[1].count("<h2>words (continued)</h2>") == 1
    assert claim_gallery(out, force=True) == out
    if 0 in counts:
        assert "There are none." in texts[-1]


def test_a_picture_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    out = write_gallery(tmp_path / "out", gallery("one")).page.parent

    def fails() -> Item:
        raise DataError("the image went away")

    with pytest.raises(DataError):
        write_gallery(out, Gallery("two", [], [Section("", "", [*gallery("two").sections[0].pictures, fails])]))
    assert "<h1>one</h1>" in (out / "index.html").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


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
