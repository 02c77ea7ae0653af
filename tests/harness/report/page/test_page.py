"""The page as HTML: its structure, its evidence, its words, and that nothing in data becomes a part of it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from msgspec.structs import replace

from detector.runs.record import content_hash
from detector.storage.files import write_json
from harness.figures.images import pictures
from harness.planning.selection import Selection
from harness.report.page.evidence import MOST_SEEDS
from harness.report.page.page import Page, html, page_of
from harness.report.page.pictures import IMAGE_BYTES
from harness.report.page.scales import scales
from harness.report.views import judge
from harness.store.records import Store
from support.records import record_of, results_of_first_format
from tests.conftest import PROJECT
from tests.harness.figures.made import made_records, write
from tests.harness.report.page.hostile import hostile_project, put
from tests.harness.report.page.reading import image, page_html, read


def test_page_has_one_heading_landmarks_and_a_way_past_them(committed_html: str) -> None:
    page = read(committed_html)
    assert [item.text for item in page.named("h1")] == ["Does the paper hold?"]
    assert [len(page.named(tag)) for tag in ("main", "header", "footer", "nav")] == [1, 1, 1, 1]
    assert page.named("html")[0].attributes["lang"] == "en"
    assert page.named("a")[0].attributes["href"] == "#main"
    levels = [int(item.tag[1]) for item in page.elements if re.fullmatch("h[1-6]", item.tag)]
    assert all(b - a <= 1 for a, b in pairwise(levels))


def test_every_table_has_a_caption_and_its_headings_say_what_they_head(committed_html: str) -> None:
    page = read(committed_html)
    assert len(page.named("caption")) == len(page.named("table")) > 50
    assert all(item.text.strip() for item in page.named("caption"))
    assert {item.attributes.get("scope") for item in page.named("th")} <= {"row", "col", "colgroup", "rowgroup"}


def test_every_link_leads_to_a_place_of_the_page_and_no_id_is_there_twice(committed_html: str) -> None:
    page = read(committed_html)
    ids = Counter(item.attributes["id"] for item in page.elements if "id" in item.attributes)
    assert [name for name, count in ids.items() if count > 1] == []
    links = [item.attributes["href"] for item in page.named("a")]
    assert {link[1:] for link in links if link.startswith("#")} <= ids.keys()
    assert all(link.startswith(("#", "data:text/csv;")) for link in links)
    labels = [name for item in page.elements for name in item.attributes.get("aria-labelledby", "").split()]
    assert set(labels) <= ids.keys()


def test_page_asks_for_nothing_from_elsewhere_and_runs_its_own_script_only(committed_html: str) -> None:
    page = read(committed_html)
    (script,) = page.named("script")
    digest = base64.b64encode(hashlib.sha256(script.text.encode()).digest()).decode()
    (policy,) = (item.attributes["content"] for item in page.named("meta") if "http-equiv" in item.attributes)
    assert policy.startswith(f"default-src 'none'; script-src 'sha256-{digest}'; ")
    assert "unsafe-eval" not in policy
    assert not any("src" in item.attributes and item.tag != "img" for item in page.elements)
    assert not any(name.startswith("on") for item in page.elements for name in item.attributes)
    assert "http://" not in committed_html.replace('xmlns="http://www.w3.org/2000/svg"', "")


def test_first_screen_says_whether_the_paper_holds_with_the_verdicts_of_check(
    committed: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    (found,) = committed.summaries
    verdicts = judge(Selection("all", "tiny", [], None)).paper
    assert verdicts is not None
    counts = Counter(verdict.outcome for verdict in verdicts.claims)
    decidable = len(verdicts.claims) - counts["not decidable here"]
    assert f"{counts['supported']} of the {decidable} claims that this scale can decide" in found.answer
    facts = {fact.name: fact.value for fact in found.facts}
    assert all(facts[f"Claims {name}"] == str(counts[name]) for name in ("supported", "contradicted", "undecided"))
    assert any("3 seeds per row" in text and "5%" in text for text in found.sentences)


def test_every_number_of_ours_leads_to_seeds_settings_records_and_the_command(committed_html: str) -> None:
    page = read(committed_html)
    row = page.with_id("row:tiny:table2/L6").text
    assert "harness run table2/L6 --profile tiny --seeds 3" in row
    assert "table1/hp-e_hn-3.5" in row  # the same trainings
    assert "9ac7f31466e4c870" in row
    commit = json.loads((PROJECT / "results/records/tiny/9ac7f31466e4c870.json").read_text())["code"]["commit"]
    run = page.with_id("run:9ac7f31466e4c870").text
    assert "$HARNESS_RESULTS/records/tiny/9ac7f31466e4c870.json" in run
    assert f"commit {commit[:12]}" in run
    ours = [item for item in page.named("a") if item.attributes["href"] == "#row:tiny:table2/L6"]
    assert len(ours) >= 6


def test_deviations_stand_beside_what_their_ablations_measured(committed_html: str) -> None:
    page = read(committed_html)
    (entry,) = (item for item in page.named("article") if item.text.strip().startswith("matching.background_iou"))
    assert "ablations/dr-background-0.4" in entry.text
    assert "table3/dr" in entry.text or "table1/hp-e_hn-3.5" in entry.text or "table2/L6" in entry.text


def test_same_records_give_the_same_bytes_from_any_folder_and_no_path_of_this_machine(
    committed_html: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = tmp_path / "elsewhere"
    source = Path(Selection("all", "tiny", [], None).store.results)
    results.symlink_to(source)
    monkeypatch.setenv("HARNESS_RESULTS", str(results))
    monkeypatch.chdir(tmp_path)
    assert html(page_of(scales(["all", "ablations"], ["tiny"], None, None)), whole=True) == committed_html
    assert str(source) not in committed_html
    assert str(Path.home()) not in committed_html


def test_page_of_all_tables_is_small_enough_to_send(committed: Page) -> None:
    assert len(html(committed, whole=True).encode()) < 1_500_000  # figures and images come on top, up to 3 MB


def test_figure_that_cannot_be_drawn_says_why_and_the_next_command(committed_html: str) -> None:
    page = read(committed_html)
    (missing,) = (item for item in page.elements if "no record has a curve" in item.text and item.tag == "p")
    assert "harness run all --profile tiny" in missing.text
    assert sum(item.attributes.get("class") == "figure" for item in page.named("svg")) == 2  # claims and fig3


def test_what_records_of_format_one_do_not_have_is_said_once(
    committed_html: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "of format 1. They have no starts" not in committed_html
    monkeypatch.setenv("HARNESS_RUNS", str(tmp_path / "no-runs"))
    monkeypatch.setenv("HARNESS_RESULTS", str(results_of_first_format(PROJECT / "results", tmp_path / "results")))
    assert page_html(targets="table3").count("of format 1. They have no starts") == 1


def test_page_without_records_says_what_to_run(store: Store) -> None:
    page = read(page_html())
    text = page.named("main")[0].text
    assert "Not known: no run at profile tiny is finished." in text
    assert "harness run all --profile tiny" in text
    assert "No run is finished, so no cost was measured." in text


def test_scales_stand_side_by_side_and_each_has_its_own_table(store: Store) -> None:
    put(store, seeds=2)
    page = read(page_html("tiny", "paper", targets="table2"))
    captions = [item.text for item in page.named("caption")]
    assert captions.count("AP at each scale") == 1
    assert sum(text.startswith(("Profile tiny:", "Profile paper:")) for text in captions) == 2
    assert len(page.named("h1")) == 1
    assert [item.text for item in page.named("p") if item.attributes.get("class", "").startswith("answer")] == [
        "Not decided yet: none of the 3 claims that this scale can decide is supported, none is contradicted, "
        "3 are undecided.",
        "Not known: no run at profile paper is finished.",
    ]


def test_more_seeds_than_a_person_reads_are_counted(store: Store) -> None:
    put(store, seeds=MOST_SEEDS + 8)
    page = read(page_html(targets="table2/L6"))
    row = page.with_id("row:tiny:table2/L6")
    assert "And 8 more: harness show table2/L6 --profile tiny" in row.text
    assert sum("run:" in item.attributes.get("id", "") for item in page.elements) == MOST_SEEDS


def test_file_that_is_no_record_is_named_without_its_folder(store: Store, tmp_path: Path) -> None:
    put(store)
    (tmp_path / "results" / "records" / "tiny" / "broken.json").write_text("{")
    text = page_html()
    assert "$HARNESS_RESULTS/records/tiny/broken.json" in text
    assert str(tmp_path) not in text


def test_last_lines_of_the_log_are_there_where_the_run_is(store: Store) -> None:
    put(store)
    assert "Logs are in the runs' folders, of which none is here." in page_html(targets="table2/L6")
    (cell,) = Selection("table2/L6", "tiny", [], None).plan(1).cells
    run = store.run_dir(cell.job.train.id)
    run.root.mkdir(parents=True)
    run.log.write_text(f"begins\n{run.root}/x: the last line\n")
    text = page_html(targets="table2/L6")
    assert f"$HARNESS_RUNS/{cell.job.train.id}/x: the last line" in text
    assert "of which none is here" not in text


def test_images_are_shown_as_far_as_the_page_may_grow(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    large = image("one too many", row="b", size=IMAGE_BYTES)
    monkeypatch.setattr(pictures, "pictures_of", lambda selection: [image(row="a"), large])
    page = read(page_html(targets="table2/L6"))
    (shown,) = page.named("img")
    assert shown.attributes["alt"] == "an image"
    assert shown.attributes["src"] == f"data:image/jpeg;base64,{base64.b64encode(b'jpeg').decode()}"
    assert "1 more is not here, for size" in page.named("main")[0].text


def test_each_row_shows_an_image_before_any_shows_two(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    put(store)
    of_rows = [("a", "worst"), ("a", "best"), ("a", "changed"), ("b", "worst"), ("b", "changed"), ("c", "worst")]
    size = IMAGE_BYTES // 4
    found = [image(row=row, alt=f"{row} {which}", size=size) for row, which in of_rows]
    monkeypatch.setattr(pictures, "pictures_of", lambda selection: found)
    page = read(page_html(targets="table2/L6"))
    shown = [item.attributes["alt"] for item in page.named("img")]
    assert shown == ["a best", "a changed", "b changed", "c worst"]
    assert "2 more are not here, for size: harness images b --profile tiny" in page.named("main")[0].text


def test_several_scales_share_the_room_for_images(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    put(store)
    monkeypatch.setattr(pictures, "pictures_of", lambda selection: [image(size=IMAGE_BYTES // 2)] * 2)
    assert len(read(page_html("tiny", targets="table2/L6")).named("img")) == 2
    assert len(read(page_html("tiny", "smoke", targets="table2/L6")).named("img")) == 2


def test_page_says_why_it_has_no_image(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    put(store)
    text = read(page_html(targets="table2/L6")).named("main")[0].text
    assert "No images at profile tiny. Images are drawn from the detections in a run's folder" in text


def test_statements_of_a_figure_stand_below_it_with_their_verdicts_and_once(committed_html: str) -> None:
    (figure,) = (item for item in read(committed_html).named("figcaption") if "Title of fig3" in item.text)
    assert "A caption. Its end." in figure.text
    assert "✓ holds: Curves touch: 0.5 at 0 (§3)" in figure.text
    assert "✗ does not hold: Curves <b>part</b>: 0.1 at 1 (§4)" in figure.text
    assert figure.text.count("Curves touch") == 1


def test_one_claim_is_spoken_of_as_one(store: Store) -> None:
    put(store, seeds=2)
    page = read(page_html(targets="table2/L6"))
    (answer,) = (item.text for item in page.named("p") if item.attributes.get("class", "").startswith("answer"))
    assert answer == "Not decided yet: the one claim that this scale can decide is undecided."


@pytest.mark.parametrize(
    ("target", "answer", "how_sure"),
    [
        (
            "table4/dr-r101",
            "Not known: none of these claims can be decided at profile tiny.",
            "Each claim stands below",
        ),
        ("ablations/modern-boxes", "Not known: no claim is about these rows.", None),
    ],
)
def test_where_nothing_can_be_decided_nothing_is_said_of_errors(
    store: Store, target: str, answer: str, how_sure: str | None
) -> None:
    put(store, target, seeds=2)
    text = read(page_html(targets=target)).named("main")[0].text
    assert answer in text
    assert "How sure" not in text
    assert how_sure is None or how_sure in text


def test_first_screen_says_first_that_a_claim_is_contradicted(store: Store) -> None:
    rows = {"table2/focal": {0: 30.0, 1: 30.4, 2: 30.2}, "table1/hp-e_hn-e": {0: 20.1, 1: 20.4, 2: 20.2}}
    write(store.results, made_records("tiny", rows))
    (answer,) = (item for item in read(page_html()).named("p") if item.attributes.get("class", "").startswith("answer"))
    assert answer.text.startswith("Not in every point: none of the 6 claims")
    assert "1 is contradicted" in answer.text
    assert answer.attributes["class"] == "answer bad"


def test_first_screen_names_the_commands_that_go_on(store: Store) -> None:
    put(store, seeds=2)
    put(store, "table2/focal", seeds=2)
    found = [
        item.text for item in read(page_html(targets="table2")).named("p") if item.attributes.get("class") == "next"
    ]
    assert found[0] == "Train what is missing: harness run table2 --profile tiny"
    assert found[1].startswith("Plan what decides the rest: harness plan table2 --profile tiny --budget ")


def tags_and_attributes(text: str) -> set[tuple[str, str]]:
    return {(item.tag, name) for item in read(text).elements for name in ("", *item.attributes)}


def test_text_from_data_and_files_stays_text(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(store, notes=("plain",), environment={"device": "cpu"})
    before = tags_and_attributes(page_html())
    hostile_project(store, tmp_path, monkeypatch)
    text = html(page_of(scales(["all", "table9"], ["tiny"], None, None)), whole=True)
    new = {("img", name) for name in ("", "src", "alt", "width", "height", "decoding")}
    assert tags_and_attributes(text) - before - new <= {("pre", ""), ("pre", "tabindex"), ("pre", "aria-label")}
    assert "\u202e" not in text
    assert "\\u202etxt{{ 7 * 7 }}" in text  # shown, and no template
    assert read(text).named("main")[0].text.count("<script>alert(1)</script>") > 5


def test_records_with_findings_and_starts_show_them(store: Store) -> None:
    (cell,) = Selection("table2/L6", "tiny", [], None).plan(1).cells
    from detector.runs.findings import Health, LostAP
    from detector.runs.provenance import Start

    plain = record_of(cell.job)
    start = Start(
        time="2026-11-01T00:00:00+00:00",
        code=plain.code,
        environment={"device": "cuda (H100)"},
        processes=2,
        threads=4,
        precision="fp32",
    )
    lost = LostAP(classification=1.25, localisation=2.0, both=0.5, duplicate=0.0, background=3.0, missed=4.0)
    record = replace(
        plain, format=2, starts=(start,), lost_ap=lost, health=(Health(name="no detections", message="0 boxes"),)
    )
    record = replace(record, sha256=content_hash(record))
    write_json(store.committed(record), record)
    page = read(page_html(targets="table2/L6"))
    run = page.with_id(f"run:{record.eval_id}").text
    assert "2 processes of 4 threads, fp32, cuda (H100)" in run
    assert "no detections: 0 boxes" in run
    (errors,) = (item for item in page.named("table") if "AP lost by kind of error" in item.text)
    assert "classification" in errors.text
    assert "background" in errors.text
    assert "1.2" in errors.text
