"""Rows of one's own on other data than the paper's: planned, read and pooled apart."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from detector.errors import UsageError
from detector.runs.job import AnnotatedFolder, EvalJob
from harness.planning.budget import PriceList
from harness.planning.plan import make_plan
from harness.planning.rows import row_records, row_runs
from harness.planning.selection import Selection
from harness.registry.load import Registry
from harness.store.records import Store
from harness.verdicts.runs import RowRuns
from tests.command import error
from tests.harness.planning.test_costs import record_of
from tests.own_experiments import own_folder, set_folders, write_own

pytestmark = pytest.mark.usefixtures("empty_folders")
ROWS = ("table2/L6", "table5/low")
FOLDER = "{source: folder, train_split: train2017, test_split: val2017, num_images: null, train_sha256: null, "


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """At profile paper, which sets no data, the first row of table5 names a folder."""
    folder = own_folder(write_own(tmp_path / "own", "recipes/mine.yaml"), "table5")
    recipe, table = folder / "recipes" / "mine.yaml", folder / "table5.yaml"
    data = f"data: {FOLDER}test_sha256: null}}"
    recipe.write_text(recipe.read_text().replace("{loss: {margin: 0.4}}", f"{{{data}}}").replace("loss.margin", "data"))
    table.write_text(table.read_text().replace("dr-r50-1x", "mine", 1))
    set_folders(monkeypatch, folder)
    return Registry()


def jobs(registry: Registry) -> dict[str, EvalJob]:
    plan = make_plan(registry, list(ROWS), registry.profile("paper"))
    return {cell.ref: cell.job for cell in plan.cells}


def named(job: EvalJob, sha: str) -> EvalJob:
    assert isinstance(job.train.data, AnnotatedFolder)
    return replace(job, train=replace(job.train, data=replace(job.train.data, train_sha256=sha, test_sha256=sha)))


def store_of(*found: EvalJob) -> Store:
    """Only the records of these evaluations."""
    records = [record_of(job, train_seconds=1, eval_seconds=1) for job in found]
    store = Store(Path("/none"), Path("/none"))
    store.__dict__["records"] = records
    return store


def test_records_on_other_data_leave_the_papers_rows_alone(registry: Registry) -> None:
    planned = jobs(registry)
    own = named(planned["table5/low"], "a" * 64)
    plan = make_plan(registry, list(ROWS), registry.profile("paper"))
    found = row_records(store_of(planned["table2/L6"], own), [plan])
    assert {ref: len(records) for ref, records in found.items()} == dict.fromkeys(ROWS, 1)
    runs = row_runs(found, split="minival")
    assert (runs["table2/L6"].pool, runs["table5/low"].pool) == ("resnet50/90000", "resnet50/90000, data set 2")
    with pytest.raises(UsageError, match="2 different data sets"):
        row_records(store_of(own, named(own, "b" * 64)), [plan])


def test_a_named_folder_is_that_of_the_rows_which_leave_it_open(registry: Registry) -> None:
    data = named(jobs(registry)["table5/low"], "a" * 64).train.data
    plan = make_plan(registry, list(ROWS), registry.profile("paper"), data=data)
    first, second = (cell.job.train.data for cell in plan.cells)
    assert (first, second) == (jobs(registry)["table2/L6"].train.data, data)


@pytest.mark.usefixtures("registry")
def test_a_plan_of_two_data_sets_is_refused_with_its_rows() -> None:
    assert "are of 2 data sets at profile paper" in error("plan", "table5")
    assert "such as table5/high and table5/low" in error("plan", "table5")


def test_a_budget_for_the_paper_reckons_without_rows_of_ones_own(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def row(ref: str, *values: float) -> RowRuns:
        ids = tuple(f"{ref}{seed}" for seed in range(len(values)))
        metrics = tuple({"AP": value} for value in values)
        return RowRuns(ref, "resnet50/90000", tuple(range(len(values))), metrics, ids)

    found = {item.ref: item for item in (row("table2/L6", 37.0, 37.2), row("table5/high", 30.0, 44.0))}
    monkeypatch.setattr(Selection, "runs", lambda self, split=None: found)
    selection = Selection("all", "paper", [], None)
    papers, own = (PriceList(selection, registry.claims, own=own) for own in (False, True))
    line = papers.by_ref["table2/L6"]
    assert papers.deviation(line, "AP") == pytest.approx(0.02**0.5)
    assert own.deviation(line, "AP") > 5
