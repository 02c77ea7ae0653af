"""Ids that are pinned, the profile one-gpu, and the recipes of the configurations that the authors released."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from harness.registry.load import Registry
from harness.registry.resolve import eval_job, resolve, resolve_recipe
from tests.command import error, invoke

pytestmark = pytest.mark.usefixtures("empty_folders")
PROJECT = Path(__file__).resolve().parents[3]

# By profile: of every row's reference, training id and evaluation id (seed 0), one per line, in the order of names.
IDS = {
    "overfit": "d663ef57d6962ba3",
    "paper": "71d614fd240c360d",
    "small": "3994693669e77a76",
    "smoke": "e8db68c6d6e0ecaa",
    "tiny": "cf035f7187b74a30",
}
# Rows that came after these digests.
LATER = {
    f"ablations/{name}" for name in ("dr-no-low-quality", "focal-no-low-quality", "dr-r101-ms-two-nms", "dr-crowd-only")
}


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry(PROJECT / "experiments")


@pytest.mark.parametrize("name", IDS)
def test_ids_of_every_row_are_what_they_were(registry: Registry, name: str) -> None:
    profile = registry.profile(name)
    digest = hashlib.sha256()
    for table in registry.tables.values():
        for ref in sorted(set(table.refs(name)) - LATER):
            job = eval_job(resolve(registry, ref, profile), 0)
            digest.update(f"{ref} {job.train.id} {job.id}\n".encode())
    assert digest.hexdigest()[:16] == IDS[name]


def test_one_gpu_resolves_to_the_size_that_the_authors_released(registry: Registry) -> None:
    """Row L6 at profile one-gpu is the released configuration of 400 pixels, in bf16."""
    ours = resolve(registry, "table2/L6", registry.profile("one-gpu"))
    released = registry.recipes["dr-r50-1x-400"].value
    for path in ("augmentation.short_sides", "augmentation.max_size", "test.short_sides", "test.max_size"):
        block, field = path.split(".")
        assert ours.get(path) == released.settings[block][field], path
    job = eval_job(ours, 0)
    assert (job.train.precision, job.train.schedule.iterations, job.train.batch.images) == ("bf16", 90_000, 16)


def test_a_long_side_without_a_short_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (PROJECT / "experiments" / "profiles" / "one-gpu.yaml").read_text()
    (tmp_path / "profiles").mkdir()
    changed = text.replace("name: one-gpu", "name: half").replace("short_side_800: 400\n", "")
    (tmp_path / "profiles" / "half.yaml").write_text(changed)
    monkeypatch.setenv("HARNESS_EXPERIMENTS", str(tmp_path))
    assert "long_side_1333 goes with short_side_800" in error("plan", "table2", "--profile", "half")


def test_one_gpu_trains_rows_of_its_own_at_every_size(registry: Registry) -> None:
    profile = registry.profile("one-gpu")
    train = {ref: eval_job(resolve(registry, ref, profile), 0) for ref in registry.select("all", "one-gpu")}
    assert len({job.train.id for job in train.values()}) == 17
    at_paper = {eval_job(resolve(registry, ref, registry.profile("paper")), 0).train.id for ref in train}
    assert at_paper.isdisjoint(job.train.id for job in train.values())
    jitter = train["table4/dr-r101"].train.augmentation
    assert (jitter.short_sides, jitter.max_size) == ((320, 336, 352, 368, 384, 400), 667)


def test_one_gpu_decides_contrasts_of_resnet_50_alone(registry: Registry) -> None:
    decided = [claim for claim in registry.claims if "one-gpu" in claim.decidable_in]
    assert len(decided) == 14
    for claim in decided:
        assert claim.contrasts, claim.id
        for ref in claim.refs():
            job = eval_job(resolve(registry, ref, registry.profile("one-gpu")), 0)
            assert job.train.model.backbone == "resnet50", (claim.id, ref)


def test_check_says_what_one_gpu_cannot_decide() -> None:
    text = " ".join(invoke("check", "all", "--profile", "one-gpu").stdout.split())
    assert "8 not decidable here" in text
    assert "This scale is for ResNet-50" in text


def test_recipes_of_the_released_configurations_name_them(registry: Registry) -> None:
    found = {name: source.value.released for name, source in registry.recipes.items() if source.value.released}
    assert {name: (item.config, item.minival, item.test_dev) for name, item in found.items()} == {
        "dr-r50-1x": ("dr_R-50-FPN_1x", 37.4, 37.6),
        "dr-r50-1x-400": ("dr_R-50-FPN_1x_input_400", None, None),
        "dr-r101-1x": ("dr_R-101-FPN_1x", None, None),
        "dr-r101-2x": ("dr_R-101-FPN_2x", 41.5, 41.7),
    }


# What the authors' four files say beyond their base codebase's defaults.
RELEASED = {
    "dr-r50-1x": ("resnet50", [800], 1333, 90_000, [60_000, 80_000], 0.2),
    "dr-r50-1x-400": ("resnet50", [400], 667, 90_000, [60_000, 80_000], 0.2),
    "dr-r101-1x": ("resnet101", [800], 1333, 90_000, [60_000, 80_000], 0.2),
    "dr-r101-2x": ("resnet101", [640, 672, 704, 736, 768, 800], 1333, 180_000, [120_000, 160_000], 0.1),
}
PATHS = ("model.backbone", "augmentation.short_sides", "augmentation.max_size", "schedule.iterations")


@pytest.mark.parametrize("name", RELEASED)
def test_released_recipes_have_the_released_values(registry: Registry, name: str) -> None:
    found = resolve_recipe(registry, name, registry.profile("paper"))
    values = tuple(found.get(path) for path in (*PATHS, "schedule.milestones", "test.score_threshold"))
    assert values == RELEASED[name]
    assert [found.get(path) for path in ("matching.background_iou", "test.nms_iou", "optimizer.lr")] == [0.5, 0.5, 0.01]
    assert found.get("test.max_size") == found.get("augmentation.max_size")


def test_list_and_explain_know_the_released_recipes() -> None:
    listed = {recipe["name"]: recipe for recipe in json.loads(invoke("list", "--json").stdout)["recipes"]}
    assert listed["dr-r101-1x"]["released"]["config"] == "dr_R-101-FPN_1x"
    assert listed["retinanet-r50-1x"]["released"] is None
    assert "dr_R-50-FPN_1x_input_400 (no weights, no number)" in invoke("list").stdout
    text = invoke("explain", "dr-r50-1x-400").stdout
    assert "recipe dr-r50-1x-400, profile paper" in text
    assert "authors' released configuration dr_R-50-FPN_1x_input_400" in text
    data = json.loads(invoke("explain", "dr-r101-1x", "--json").stdout)
    settings = {item["path"]: (item["value"], item["source"]) for item in data["settings"]}
    assert settings["model.backbone"] == ("resnet101", "released config")
    assert "loss.scope" in {item["path"] for item in data["deviations"]}
    assert "(AP 37.4 minival, 37.6 test-dev)" in invoke("explain", "table2/L6").stdout
