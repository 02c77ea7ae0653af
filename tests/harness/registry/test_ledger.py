"""The deviation ledger: complete, in agreement with the recipes, and each entry with a row that tries another value."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from detector.errors import RegistryError, UsageError
from harness.folders import experiments_folder
from harness.registry.declarations import LedgerEntry
from harness.registry.ledger import SILENT, deviations, table_notes
from harness.registry.load import Registry, leaves
from harness.registry.resolve import recipe, resolve
from harness.report.explanation import explanation, explanation_as_text

BASE = "retinanet-r50-1x"
PAPERS = ("dr-r50-1x", "dr-r101-2x", "dr-x101-1.5x", "focal-r101-2x", "focal-x101-1.5x")
# What the paper is about, and what a backbone brings with it; the longer schedules of Table 4 are the paper's subject.
SUBJECT = ("loss.", "model.backbone", "model.stride_in_1x1", "schedule.")


def entries(registry: Registry, name: str, path: str) -> list[LedgerEntry]:
    return [
        entry
        for entry in registry.ledger.fields
        if entry.path == path and (entry.recipes is None or name in entry.recipes) and entry.rows is None
    ]


def test_every_setting_in_which_a_recipe_differs_from_the_base_codebases_is_in_the_ledger() -> None:
    registry = Registry()
    base = recipe(registry, BASE)
    for name in PAPERS:
        resolved = recipe(registry, name)
        for path in leaves(resolved.settings):
            if not path.startswith(SUBJECT) and resolved.get(path) != base.get(path):
                assert entries(registry, name, path), (name, path)


@pytest.mark.parametrize(
    ("origin", "source"), [("paper §", "paper"), ("released config", "released"), ("base codebase", "base")]
)
def test_the_ledger_says_of_a_source_what_the_recipes_take_from_it(origin: str, source: str) -> None:
    registry = Registry()
    checked = 0
    for name in (BASE, *PAPERS):
        resolved = recipe(registry, name)
        for path, where in resolved.origins.items():
            for entry in entries(registry, name, path):
                # The paper gives a range of sides, and no schedule's milestones beyond 1x.
                if where.startswith(origin):
                    assert getattr(entry, source) == resolved.get(path), (name, path, where)
                    checked += 1
    assert checked > 3


def test_every_ablation_of_an_entry_has_another_value_than_the_rows_that_it_is_about() -> None:
    registry = Registry()
    paper = registry.profile("paper")
    for entry in registry.ledger.fields:
        refs = entry.rows or [
            ref
            for table in registry.tables.values()
            if table.id != "ablations"
            for ref in table.refs()
            if entry.recipes is None or registry.row(ref)[1].recipe in entry.recipes
        ]
        values = [resolve(registry, ref, paper).get(entry.path) for ref in refs]
        for ablation in entry.ablations:
            other = resolve(registry, ablation, paper).get(entry.path)
            assert any(other != value for value in values), (entry.path, ablation)


def test_every_entry_names_a_disagreement_for_some_row() -> None:
    registry = Registry()
    paper = registry.profile("paper")
    seen = {
        id(item.entry)
        for table in registry.tables.values()
        for ref in table.refs()
        for item in deviations(registry, ref, resolve(registry, ref, paper))
    }
    assert [entry.path for entry in registry.ledger.fields if id(entry) not in seen] == []


def test_a_row_uses_the_value_of_its_own_recipe() -> None:
    registry = Registry()
    paper = registry.profile("paper")
    for ref, used in (("table2/focal", 0.4), ("table2/L6", 0.5)):
        found = {item.entry.path: item for item in deviations(registry, ref, resolve(registry, ref, paper))}
        assert found["matching.background_iou"].used == used
        assert found["matching.background_iou"].stated == {"paper": SILENT, "released": 0.5, "base": 0.4}


def test_what_a_profiles_scale_sets_is_no_deviation() -> None:
    registry = Registry()
    found = deviations(registry, "table2/L6", resolve(registry, "table2/L6", registry.profile("tiny")))
    paths = {item.entry.path for item in found}
    assert "matching.background_iou" in paths
    assert paths.isdisjoint({"optimizer.lr", "schedule.iterations", "model.weights"})


def test_the_footnotes_of_a_table_tell_which_rows_use_which_value() -> None:
    registry = Registry()
    table = registry.table("table2")
    notes = "\n".join(table_notes(registry, registry.profile("paper"), table.refs()))
    assert "matching.background_iou: 0.5 (0.4 in Focal). Paper: silent; released: 0.5; base: 0.4. Ablation: " in notes
    assert "Ablation: ablations/dr-batch-scope." in notes


def test_explain_prints_the_ledger_of_a_row() -> None:
    data = explanation("table4/dr-r101-ms", "paper", [])
    assert {item["path"] for item in data["deviations"]} >= {"test.max_size", "loss.scope", "augmentation.short_sides"}
    text = explanation_as_text(data)
    assert "test.max_size: used 2000  (paper silent; released silent; base 4000)" in text
    assert "to try another value: harness run ablations/dr-r101-ms-4000" in text
    assert "NMS: above it, in float64, everywhere" in text


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[ablations/dr-batch-scope]", "[ablations/gone]", "loss.scope: unknown ablation 'ablations/gone'"),
        ("rows: [table3/all]", "rows: [table3/none]", "loss.surrogate.name: unknown row 'table3/none'"),
        (
            "recipes: [dr-r50-1x, dr-r50-1x-400, dr-r101-1x, dr-r101-2x, dr-x101-1.5x]",
            "recipes: [dr]",
            "loss.scope: unknown recipe 'dr'",
        ),
    ],
)
def test_a_name_that_does_not_exist_is_told_with_file_and_line(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    folder = tmp_path / "experiments"
    shutil.copytree(experiments_folder(), folder)
    path = folder / "ledger.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(RegistryError, match=message) as caught:
        Registry(folder).ledger  # noqa: B018 (reading is checking)
    assert str(caught.value).startswith(f"{path}:{text[: text.index(old)].count(chr(10)) + 1}: ")


def test_a_row_that_means_nothing_at_a_profile_is_left_out_of_targets_and_refused_alone() -> None:
    registry = Registry()
    assert "ablations/base-schedule" in registry.select("ablations", "paper")
    assert "ablations/base-schedule" not in registry.select("ablations", "tiny")
    with pytest.raises(UsageError, match=r"means nothing at profile tiny, .* Its profiles: paper, one-gpu\."):
        registry.select("ablations/base-schedule", "tiny")
