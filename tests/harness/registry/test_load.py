"""The registry of the paper: complete, and strict with file, line and choices where it is wrong."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from detector.errors import RegistryError, UsageError
from detector.runs.job import TrainJob
from harness.folders import experiments_folder
from harness.launch.assignments import assignments
from harness.planning.plan import make_plan
from harness.registry.load import Registry
from harness.registry.resolve import jobs, parse_overrides, recipe, resolve
from harness.store.records import Store


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the experiments that a test may break."""
    copy = tmp_path / "experiments"
    shutil.copytree(experiments_folder(), copy)
    return copy


def break_file(path: Path, old: str, new: str) -> int:
    """Replace the first ``old`` and return the line that it stood in."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    return text[: text.index(old)].count("\n") + 1


def load_all(folder: Path) -> None:
    registry = Registry(folder)
    registry.claims  # noqa: B018 (reading is checking)
    registry.ledger  # noqa: B018
    for table in registry.tables.values():
        for name in registry.profiles:
            for ref in table.refs(name):
                resolve(registry, ref, registry.profile(name))


def test_registry_holds_every_table_and_resolves_every_row_at_every_profile() -> None:
    registry = Registry()
    assert [len(registry.tables[f"table{i}"].rows) for i in (1, 2, 3, 4)] == [6, 8, 3, 17]
    assert set(registry.profiles) == {"paper", "one-gpu", "small", "tiny", "smoke", "overfit"}
    assert len(registry.select("all")) == 6 + 8 + 3 + 4
    load_all(registry.folder)


TABLE, DR, FOCAL, TINY = "table2.yaml", "recipes/dr-r50-1x.yaml", "recipes/retinanet-r50-1x.yaml", "profiles/tiny.yaml"


@pytest.mark.parametrize(
    ("file", "old", "new", "expected"),
    [
        (TABLE, "published:", "publishd:", "unknown key 'publishd'. Known keys: cells, cited, group"),
        (TABLE, "recipe: retinanet-r50-1x", "recipe: r50", "unknown recipe 'r50'. Known: detectron2-r101"),
        (
            TABLE,
            "split: minival",
            "split: val",
            "split is 'val': invalid enum value 'val'. Valid: 'minival', 'test-dev'.",
        ),
        (DR, "scope: image", "scope: img", "loss.scope is 'img': invalid enum value 'img'. Valid: 'batch', 'image'."),
        (DR, "tau: 4.0", "tau: four", "loss.tau is 'four': expected `float`, got `str`"),
        (DR, "tau: 4.0", "tauu: 4.0", "loss.tauu has no source"),
        (FOCAL, "  precision: fp32", "  precision: fp8", "precision is 'fp8'"),
        (TINY, "compare_with_paper: false", "compare_with_paper: perhaps", "expected `bool`, got `str`"),
        (TINY, "optimizer: {lr:", "matching: {background_iou:", "a profile may not set 'matching.background_iou'"),
        (TINY, "head_convs: 1", "head_layers: 1", "unknown setting 'model.head_layers'. Known: model."),
    ],
)
def test_registry_names_file_line_value_and_choices(folder: Path, file: str, old: str, new: str, expected: str) -> None:
    line = break_file(folder / file, old, new)
    with pytest.raises(RegistryError) as caught:
        load_all(folder)
    assert str(caught.value).startswith(f"{folder / file}:{line}: ")
    assert expected in str(caught.value)


def test_registry_rejects_a_key_written_twice(folder: Path) -> None:
    path = folder / "profiles" / "tiny.yaml"
    path.write_text(path.read_text() + "needs: nothing\n")
    with pytest.raises(RegistryError, match=r"tiny\.yaml:\d+: key 'needs' is written twice \(first in line \d+\)"):
        load_all(folder)


def test_registry_rejects_a_claim_about_a_missing_row(folder: Path) -> None:
    line = break_file(folder / "claims.yaml", "table2/hinge", "table2/hinje")
    with pytest.raises(
        RegistryError, match=rf"claims\.yaml:{line}: .*unknown row 'table2/hinje'\. Known: .*table2/hinge"
    ):
        load_all(folder)


def test_a_claim_that_leaves_a_profile_out_stops_nothing(folder: Path) -> None:
    tiny = (folder / "profiles" / "tiny.yaml").read_text()
    (folder / "profiles" / "mine.yaml").write_text(tiny.replace("name: tiny", "name: mine"))
    load_all(folder)
    claim = Registry(folder).claims[0]
    assert claim.reason("mine").startswith("nobody has declared it for profile mine")


def test_registry_rejects_a_row_with_an_unknown_setting(folder: Path) -> None:
    line = break_file(folder / "table2.yaml", "loss.surrogate:", "loss.surogate:")
    with pytest.raises(RegistryError, match=rf"table2\.yaml:{line}: unknown setting 'loss\.surogate'"):
        load_all(folder)


def test_registry_rejects_bad_yaml(folder: Path) -> None:
    (folder / "table3.yaml").write_text("id: [table3\n")
    with pytest.raises(RegistryError, match=r"table3\.yaml:\d+: not valid YAML"):
        load_all(folder)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("tabel2", "Unknown table 'tabel2'. Known: table1, table2, table3, table4, ablations. Run 'harness list'."),
        ("table2/L7", "Unknown row 'L7' of table2. Known: focal, hinge,"),
        ("table4/yolov2-darknet-19", "is cited from another paper"),
    ],
)
def test_select_names_the_valid_targets(target: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        Registry().select(target)
    assert message in str(caught.value)


def test_unknown_profile_names_the_known_ones() -> None:
    with pytest.raises(UsageError, match="Unknown profile 'big'. Known: one-gpu, overfit, paper, small, smoke, tiny"):
        Registry().profile("big")


def test_every_setting_of_every_recipe_has_a_source() -> None:
    registry = Registry()
    for name in registry.recipes:
        resolution = recipe(registry, name)
        assert resolution.origins
        for path, origin in resolution.origins.items():
            assert origin.startswith(
                ("paper §", "released config", "base codebase", "ours", "torchvision", "Detectron2")
            ), (name, path, origin)


def test_resolve_takes_the_papers_values_at_its_own_scale() -> None:
    registry = Registry()
    train, test = jobs(resolve(registry, "table2/L6", registry.profile("paper")), seed=0)
    assert (train.optimizer.lr, train.batch.images, train.schedule.iterations) == (0.01, 16, 90_000)
    assert train.schedule.milestones == (60_000, 80_000)
    assert (train.loss.margin, train.loss.tau, train.loss.surrogate.L) == (0.5, 4.0, 6.0)
    assert train.loss.lambda_pos == 1.0
    assert train.loss.lambda_neg == pytest.approx(0.0798235, abs=1e-7)  # 0.1 / log(3.5)
    assert (train.matching.background_iou, test.score_threshold, test.nms_iou) == (0.5, 0.2, 0.5)
    assert train.model.prior_probability == 0.5
    focal, focal_test = jobs(resolve(registry, "table2/focal", registry.profile("paper")), seed=0)
    assert (focal.matching.background_iou, focal_test.score_threshold, focal_test.nms_iou) == (0.4, 0.05, 0.4)
    assert focal.model.prior_probability == 0.01


def test_resolve_scales_schedule_and_sizes_of_table_4_with_the_profile() -> None:
    registry = Registry()
    train, test = jobs(resolve(registry, "table4/dr-r101-ms", registry.profile("tiny")), seed=0)
    assert train.schedule.iterations == 800
    assert train.schedule.milestones == (533, 711)
    assert train.augmentation.short_sides == (77, 81, 84, 88, 92, 96)  # 640 .. 800 times 96 / 800
    assert test.short_sides == (96, 48, 60, 72, 84, 108, 120, 132, 144)


def test_a_profile_may_not_set_what_a_row_compares(folder: Path) -> None:
    table = folder / "table4.yaml"
    break_file(folder / "profiles" / "smoke.yaml", "test: {", "test: {max_size: 99, ")
    assert "test.max_size" in table.read_text()
    with pytest.raises(
        RegistryError, match="profile smoke sets test.max_size, which the row table4/dr-r101-ms compares"
    ):
        load_all(folder)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("optimizer.lr", "--set takes PATH=VALUE"),
        ("optimizer.rate=1", "unknown setting 'optimizer.rate'. Known: "),
        ("optimizer.lr=fast", "optimizer.lr is 'fast': expected `float`, got `str`"),
        ("precision=fp8", "Valid: 'bf16', 'fp16', 'fp32', 'tf32'"),
    ],
)
def test_overrides_are_validated(item: str, message: str) -> None:
    registry = Registry()
    with pytest.raises(UsageError) as caught:
        resolve(registry, "table2/L6", registry.profile("tiny"), overrides=parse_overrides([item]))
    assert message in str(caught.value)


def test_plan_trains_the_17_rows_of_tables_1_to_3_with_15_trainings_per_seed() -> None:
    registry = Registry()
    refs = [ref for name in ("table1", "table2", "table3") for ref in registry.select(name)]
    for profile in ("paper", "small", "tiny"):
        plan = make_plan(registry, refs, registry.profile(profile), seeds=3)
        assert len(plan.cells) == 17 * 3
        assert len(plan.trainings) == 15 * 3
    shared = [plan.refs_of(train_id) for train_id in plan.trainings if len(plan.refs_of(train_id)) > 1]
    assert shared == [["table1/hp-e_hn-3.5", "table2/L6", "table3/dr"]] * 3


def test_plan_names_all_of_its_trainings_with_one_id_per_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry()
    plan = make_plan(registry, registry.select("table3"), registry.profile("tiny"), seeds=5)
    trainings, original = list(plan.trainings), TrainJob.id
    computed = []

    def counted(job: TrainJob) -> str:
        computed.append(job)
        return original.fget(job)  # type: ignore[attr-defined, no-any-return]

    monkeypatch.setattr(TrainJob, "id", property(counted))
    assert [plan.refs_of(train_id) for train_id in trainings] == [
        [ref] for _ in range(5) for ref in registry.select("table3")
    ]
    assert len(computed) == len(plan.cells)


def test_multi_scale_rows_reuse_the_training_and_differ_in_the_evaluation() -> None:
    registry = Registry()
    plan = make_plan(registry, ["table4/dr-r101", "table4/dr-r101-ms"], registry.profile("paper"))
    assert len(plan.trainings) == 1
    assert len({cell.job.id for cell in plan.cells}) == 2


def test_plan_refuses_no_seeds() -> None:
    registry = Registry()
    with pytest.raises(UsageError, match="--seeds is 0"):
        make_plan(registry, ["table2/L6"], registry.profile("tiny"), seeds=0)


def test_compiling_is_execution_and_in_no_identity(folder: Path, tmp_path: Path) -> None:
    break_file(folder / "profiles" / "tiny.yaml", "execution: {", "execution: {compile: true, ")
    ids = {}
    for compiled, registry in ((False, Registry()), (True, Registry(folder))):
        plan = make_plan(registry, ["table2/L6"], registry.profile("tiny"))
        (assignment,) = assignments(plan, Store(tmp_path, tmp_path), root=tmp_path, weights={}, notes=())
        assert assignment.compile is compiled
        ids[compiled] = assignment.train.id
    assert ids[True] == ids[False]
