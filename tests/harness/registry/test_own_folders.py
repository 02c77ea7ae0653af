"""Folders of one's own beside the paper's: what HARNESS_EXPERIMENTS may name, what it adds, and what is refused."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

from detector.errors import HarnessError, RegistryError, UsageError
from harness.folders import experiments_folder, experiments_folders
from harness.planning.plan import make_plan
from harness.registry.load import Registry
from harness.registry.resolve import resolve
from harness.slurm.clusters import known_clusters
from tests.own_experiments import own_folder, set_folders, write_own

PAPERS = Path(__file__).resolve().parents[3] / "experiments"


def complete(path: Path) -> Path:
    shutil.copytree(PAPERS, path)
    return path


# The variable


def test_folders_come_in_the_order_of_the_list_and_the_installed_one_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = own_folder(tmp_path / "one", "table5"), own_folder(tmp_path / "two", "table6")
    set_folders(monkeypatch, one, two, one)
    assert experiments_folders() == (one, two, PAPERS)
    monkeypatch.setenv("HARNESS_EXPERIMENTS", f"{os.pathsep}{two}{os.pathsep}")
    assert experiments_folders() == (two, PAPERS)
    monkeypatch.delenv("HARNESS_EXPERIMENTS")
    assert experiments_folders() == (PAPERS,)


def test_a_complete_folder_replaces_the_installed_one_wherever_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, other = own_folder(tmp_path / "own", "table5"), complete(tmp_path / "other")
    (other / "profiles" / "smoke.yaml").rename(tmp_path / "gone.yaml")
    claims = other / "claims.yaml"
    claims.write_text(re.sub("smoke:.*", "", claims.read_text()).replace("smoke", "tiny"))
    for order in ((own, other), (other, own)):
        set_folders(monkeypatch, *order)
        assert experiments_folder() == other
        registry = Registry()
        assert registry.own_folders == (own,)
        assert "smoke" not in registry.profiles
        assert "table5" in registry.tables


def test_two_complete_folders_are_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = complete(tmp_path / "one"), complete(tmp_path / "two")
    set_folders(monkeypatch, one, two)
    with pytest.raises(UsageError, match=f"HARNESS_EXPERIMENTS names two folders.*{one} and {two}"):
        Registry()


def test_a_name_that_cannot_be_used_is_the_variables_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "empty" / "profiles").mkdir(parents=True)
    (tmp_path / "yml" / "profiles").mkdir(parents=True)
    (tmp_path / "yml" / "profiles" / "mine.yml").touch()
    for name, message in (
        ("none", "which does not exist"),
        ("file", "which is a file, not a folder"),
        ("empty", r"which has no experiments. What belongs there: tables \(such as table5.yaml\)"),
        ("yml", r"mine.yml would not be read: files of experiments end in .yaml"),
    ):
        set_folders(monkeypatch, own_folder(tmp_path / "good", "table5"), tmp_path / name)
        with pytest.raises(UsageError, match=message) as caught:
            Registry()
        assert "HARNESS_EXPERIMENTS" in str(caught.value)


# What a folder adds


def test_a_folder_of_one_table_is_a_target_apart_from_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_folders(monkeypatch, own_folder(tmp_path, "table5"))
    registry = Registry()
    assert registry.select("table5") == ["table5/low", "table5/high"]
    assert registry.own_rows == {"table5/low", "table5/high"}
    assert not registry.own_rows & set(registry.select("all"))
    assert len(registry.select("all")) == 6 + 8 + 3 + 4
    plan = make_plan(registry, ["table5/low"], registry.profile("tiny"))
    assert plan.cells[0].job.train.loss.margin == 0.3


def test_a_folder_of_one_profile_or_recipe_or_cluster_is_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = write_own(tmp_path / "a", "profiles/mine.yaml")
    recipe = write_own(tmp_path / "b", "recipes/mine.yaml")
    cluster = tmp_path / "c" / "clusters" / "ours.yaml"
    cluster.parent.mkdir(parents=True)
    cluster.write_text("name: ours\ntitle: ours\ntime_minutes: 60\n")
    set_folders(monkeypatch, profile, recipe, tmp_path / "c")
    monkeypatch.delenv("HARNESS_CLUSTERS", raising=False)
    registry = Registry()
    assert resolve(registry, "table2/L6", registry.profile("mine")).get("schedule.iterations") == 400
    assert registry.recipes["mine"].own == tmp_path / "b"
    assert list(known_clusters()) == ["ours", "example"]


def test_own_ablations_follow_the_papers_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_folders(monkeypatch, write_own(tmp_path / "a", "ablations.yaml"))
    registry = Registry()
    assert registry.tables["ablations"].rows[:-2] == Registry(PAPERS).tables["ablations"].rows
    assert registry.own_rows == {"ablations/low", "ablations/high"}
    document, keys = registry.source_of("ablations/high")
    assert (document.path, keys) == (tmp_path / "a" / "ablations.yaml", ("rows", 1))


def test_own_claims_may_speak_of_any_row_and_stand_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = own_folder(tmp_path / "a", "table5")
    write_own(folder, "claims.yaml")
    set_folders(monkeypatch, folder)
    registry = Registry()
    assert [claim.id for claim in registry.own_claims] == ["low-is-worse"]
    assert registry.claims == Registry(PAPERS).claims


def test_each_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import harness.registry.sources as sources

    read, original = list[Path](), sources.read

    def counted(path: Path) -> object:
        read.append(path)
        return original(path)

    monkeypatch.setattr(sources, "read", counted)
    folder = own_folder(tmp_path / "a", "table5")
    write_own(folder, "claims.yaml")
    set_folders(monkeypatch, folder)
    registry = Registry()
    for _ in range(2):
        registry.claims, registry.own_claims, registry.tables, registry.own_rows, registry.ledger  # noqa: B018
        registry.source_of("table5/low")
    assert sorted(read) == sorted(set(read))


# What is refused


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("table5.yaml", r"table5.yaml:1: the table 'table5' is in .*/one/table5.yaml already"),
        ("profiles/mine.yaml", r"mine.yaml:\d+: the profile 'mine' is in .*/one/profiles/mine.yaml already"),
        ("recipes/mine.yaml", r"mine.yaml:1: the recipe 'mine' is in .*/one/recipes/mine.yaml already"),
        ("ablations.yaml", r"ablations.yaml:6: the row of ablations 'low' is in .*/one/ablations.yaml already"),
        ("claims.yaml", r"claims.yaml:2: the claim 'low-is-worse' is in .*/one/claims.yaml already"),
    ],
)
def test_a_name_that_two_folders_give_is_an_error_with_both_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, message: str
) -> None:
    folders = [write_own(tmp_path / name, file) for name in ("one", "two")]
    if file == "claims.yaml":
        own_folder(folders[0], "table5")
    set_folders(monkeypatch, *folders)
    with pytest.raises(RegistryError, match=message) as caught:
        read_all(Registry())
    assert str(caught.value).startswith(str(folders[1]))


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("table2.yaml", "", "", r"the table 'table2' is in .*takes the installed one's place only if it has recipes"),
        ("ablations.yaml", "id: low", "id: worst-case", r"ablations.yaml:6: the row of ablations 'worst-case' is in "),
        ("ablations.yaml", "[Ablation]", "[Margin]", r"ablations.yaml:4: columns is \('Margin',\); its rows go below"),
        ("ablations.yaml", "minival", "test-dev", r"ablations.yaml:3: split is 'test-dev'; its rows go below"),
        (
            "claims.yaml",
            "[tiny]",
            "[tiny, huge]",
            r"claims.yaml:8: .* names the unknown profile 'huge'. Known: one-gpu, overfit",
        ),
        (
            "claims.yaml",
            "[tiny]",
            "[tiny]\n    reasons: {huge: x}",
            r"claims.yaml:9: .*unknown profile 'huge'. Known: ",
        ),
        ("claims.yaml", "table5/low", "table5/lo", r"claims.yaml:7: .* names the unknown row 'table5/lo'. Known: "),
        ("table5.yaml", "rows:", "row:", r"table5.yaml:1: this is no table: it has no 'rows'"),
        ("all.yaml", "", "", r"all.yaml:1: 'all' stands for the paper's tables"),
        ("ledger.yaml", "", "", r"ledger.yaml: only the folder with the paper's tables has a ledger"),
    ],
)
def test_a_wrong_file_of_ones_own_is_told_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, old: str, new: str, message: str
) -> None:
    folder = write_own(tmp_path / "a", file)
    if file == "claims.yaml":
        own_folder(folder, "table5")
    path = folder / file
    path.write_text(path.read_text().replace(old, new, 1) if old else path.read_text())
    set_folders(monkeypatch, folder)
    with pytest.raises(HarnessError, match=message):
        read_all(Registry())


def test_the_papers_claims_may_not_rest_on_a_row_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    papers = complete(tmp_path / "papers")
    claims = papers / "claims.yaml"
    claims.write_text(claims.read_text().replace("table3/dr", "table5/low"))
    set_folders(monkeypatch, papers, own_folder(tmp_path / "own", "table5"))
    with pytest.raises(RegistryError, match=r"papers/claims.yaml:\d+: .*unknown row 'table5/low'"):
        read_all(Registry())


def test_a_table_without_a_row_to_train_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_own(tmp_path / "a", "table5.yaml")
    path = folder / "table5.yaml"
    path.write_text(path.read_text().replace("recipe: dr-r50-1x", "cited: others").replace("set: ", "# "))
    set_folders(monkeypatch, folder)
    registry = Registry()
    with pytest.raises(UsageError, match="No row of the target is trained at profile tiny"):
        make_plan(registry, registry.select("table5"), registry.profile("tiny"))


def read_all(registry: Registry) -> None:
    registry.claims  # noqa: B018 (reading is checking)
    registry.recipes  # noqa: B018
