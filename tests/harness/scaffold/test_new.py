"""``harness new``: what it writes is valid at once, is seen where it says, and overwrites nothing."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from harness.registry.load import Registry
from harness.registry.resolve import eval_job, resolve
from harness.slurm.clusters import find_cluster
from support.own_data import own_data
from tests.command import error, invoke


@pytest.fixture(autouse=True)
def _empty_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_folders: None) -> None:
    monkeypatch.chdir(tmp_path)
    for variable in ("HARNESS_EXPERIMENTS", "HARNESS_CLUSTERS"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is named, and not there yet."""
    monkeypatch.setenv("HARNESS_EXPERIMENTS", str(tmp_path / "own"))
    return tmp_path / "own"


def test_table_is_valid_at_once(own: Path) -> None:
    assert "harness plan mine --profile tiny" in invoke("new", "table", "mine").output
    assert "2 cells -> 2 trainings" in invoke("plan", "mine", "--profile", "tiny").output
    assert "row mine/batch-scope" in invoke("explain", "mine/batch-scope", "--profile", "tiny").output
    assert (own / "mine.yaml").is_file()


def test_recipe_is_valid_in_the_table_that_is_printed_next(own: Path) -> None:
    output = invoke("new", "recipe", "soft").output
    assert "harness new table table-soft --recipe soft" in output
    invoke("new", "table", "table-soft", "--recipe", "soft")
    registry = Registry()
    job = eval_job(resolve(registry, "table-soft/base", registry.profile("tiny")), 0).train
    assert job.regression.beta == 0.2
    assert (own / "recipes" / "soft.yaml").is_file()


@pytest.mark.usefixtures("own")
def test_profile_of_generated_images_is_valid_at_once() -> None:
    invoke("new", "profile", "mine")
    assert "8 cells -> 8 trainings" in invoke("plan", "table2", "--profile", "mine").output


def test_cluster_is_valid_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    output = invoke("new", "cluster", "campus").output
    assert f"export HARNESS_CLUSTERS={Path('clusters').absolute()}" in output
    monkeypatch.setenv("HARNESS_CLUSTERS", "clusters")
    assert find_cluster("campus").gpus_per_node == 1
    assert "already a cluster 'campus'" in error("new", "cluster", "campus")
    assert "already a cluster 'example'" in error("new", "cluster", "example")


def test_without_a_folder_of_ones_own_the_line_that_names_it_is_printed(tmp_path: Path) -> None:
    output = invoke("new", "table", "mine").output
    assert f"export HARNESS_EXPERIMENTS={tmp_path / 'my-experiments'}" in output
    assert (tmp_path / "my-experiments" / "mine.yaml").is_file()


def test_out_is_put_before_the_folders_that_are_named(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "export" not in invoke("new", "table", "first").output
    assert f"={tmp_path / 'other'}:{own}" in invoke("new", "table", "second", "--out", "other").output
    monkeypatch.setenv("HARNESS_EXPERIMENTS", f"{tmp_path / 'other'}:{own}")
    assert {"first", "second"} <= Registry().tables.keys()


def test_installed_folder_is_not_written_to(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = Registry().folder
    assert "the paper's own experiments" in error("new", "table", "mine", "--out", str(installed))
    monkeypatch.setenv("HARNESS_EXPERIMENTS", str(installed))
    assert "Wrote my-experiments/mine.yaml" in invoke("new", "table", "mine").output


def test_nothing_is_overwritten_and_no_name_is_given_twice() -> None:
    for kind, taken in (("table", "table2"), ("recipe", "dr-r50-1x"), ("profile", "tiny")):
        assert f"already a {kind} {taken!r}" in error("new", kind, taken)
    assert "cannot be named 'all'" in error("new", "table", "all")
    Path("elsewhere").mkdir()
    Path("elsewhere/mine.yaml").write_text("mine")
    assert "nothing is overwritten" in error("new", "table", "mine", "--out", "elsewhere")
    assert Path("elsewhere/mine.yaml").read_text() == "mine"


@pytest.mark.parametrize("name", ["../mine", "a/b", "a b", "", "mine.yaml", "-mine", "a--b", "ä"])
def test_name_is_letters_digits_and_dashes(name: str) -> None:
    assert "cannot be a name" in error("new", "table", "--", name)


def test_unknown_recipe_is_told_with_the_choices() -> None:
    assert "Unknown recipe 'dr'. Known: " in error("new", "table", "mine", "--recipe", "dr")
    assert "Unknown recipe 'dr'. Known: " in error("new", "recipe", "mine", "--extends", "dr")


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("ids", "changes"),
    [((3, 17, 900), {"wider": 70}), ((7,), {"one_object": True, "num_train": 3})],
    ids=["ids with gaps, twice as wide as high", "one class, one object, three images"],
)
def test_profile_of_a_data_set_says_what_was_found_and_plans(ids: tuple[int, ...], changes: dict) -> None:
    own_data(Path("root"), category_ids=ids, splits=("training", "valid"), **changes)
    output = invoke("new", "profile", "mine", "--data", "root", "--cpu").output
    assert "harness run table2/L6 --profile mine --data root" in output
    text = Path("own/profiles/mine.yaml").read_text()
    assert f"# What was found in training ({len(ids)} class" in text
    registry = Registry()
    profile = registry.profile("mine")
    job = eval_job(resolve(registry, "table2/L6", profile), 0).train
    assert (job.model.backbone, job.model.weights) == ("slim", "none")
    assert job.data.train_split == "training"
    assert profile.anchor_ranges is not None
    assert profile.anchor_ranges.positives[0] < profile.anchor_ranges.positives[1]
    assert "8 trainings, 8 to do" in invoke("plan", "table2", "--profile", "mine", "--data", "root").output
    for ref in Registry().table("ablations").refs("mine"):
        resolve(registry, ref, profile)


@pytest.mark.usefixtures("own")
def test_profile_for_a_gpu_keeps_the_recipes_network() -> None:
    own_data(Path("root"))
    invoke("new", "profile", "mine", "--data", "root", "--gpu", "--iterations", "50")
    registry = Registry()
    job = eval_job(resolve(registry, "table2/L6", registry.profile("mine")), 0).train
    assert (job.model.backbone, job.model.weights, job.schedule.iterations) == ("resnet50", "caffe2", 50)
    assert registry.profile("mine").without_weights == "from_scratch"


@pytest.mark.usefixtures("own")
def test_class_names_of_any_text_leave_the_file_valid() -> None:
    root = own_data(Path("root"))
    for path in (root / "annotations").iterdir():
        path.write_text(path.read_text().replace('"circle"', r'"a\nb: \u0000 {{ c }} #"'))
    invoke("new", "profile", "mine", "--data", "root", "--cpu", "--iterations", "9")
    assert Registry().profile("mine").iterations_1x == 9


def test_data_that_cannot_be_trained_on_is_told() -> None:
    assert "no such folder" in error("new", "profile", "mine", "--data", "nowhere")
    Path("empty").mkdir()
    assert "annotations/instances_SPLIT.json" in error("new", "profile", "mine", "--data", "empty")
    root = own_data(Path("root"), splits=("a", "b"))
    assert "Its splits with annotations (annotations/instances_*.json): a, b" in error(
        "new", "profile", "mine", "--data", "root"
    )
    (root / "a" / "000000000001.png").unlink()
    chosen = ("--train-split", "a", "--test-split", "b")
    assert "000000000001.png" in error("new", "profile", "mine", "--data", "root", *chosen)
    assert "--gpu goes with --data" in error("new", "profile", "mine", "--gpu")
    assert not Path("my-experiments").exists()


def test_loss_package_is_whole_and_named_alike() -> None:
    output = invoke("new", "loss", "my-focal").output
    for expected in ("pip install -e my-focal", "{name: my_focal, ", "harness run table-my-focal/mine --profile tiny"):
        assert expected in output
    files = {str(path.relative_to("my-focal")) for path in Path("my-focal").rglob("*") if path.is_file()}
    assert files == {"pyproject.toml", "my_focal/__init__.py", "my_focal/loss.py", "tests/test_my_focal.py"}
    for path in Path("my-focal").rglob("*.py"):
        ast.parse(path.read_text())
    assert 'my_focal = "my_focal:SPEC"' in Path("my-focal/pyproject.toml").read_text()
    assert "nothing is overwritten" in error("new", "loss", "my-focal")


@pytest.mark.parametrize("name", ["focal", "numpy", "2-stage", "class"])
def test_loss_may_not_have_the_name_of_a_loss_a_package_or_a_keyword(name: str) -> None:
    assert f"such as my-{name}" in error("new", "loss", name)


@pytest.mark.slow
def test_loss_package_passes_its_own_test_and_resolves_in_the_printed_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = invoke("new", "loss", "my-focal").output
    invoke("new", "table", "table-my-focal")
    row = output.partition("<<'END'\n")[2].partition("END\n")[0]
    with Path("my-experiments/table-my-focal.yaml").open("a") as file:
        file.write(row)
    info = tmp_path / "site" / "my_focal-0.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-focal\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text("[drloss.losses]\nmy_focal = my_focal:SPEC\n")
    project = str(Path(__file__).resolve().parents[3])
    monkeypatch.setenv("PYTHONPATH", ":".join([project, str(info.parent), str(tmp_path / "my-focal")]))
    monkeypatch.setenv("HARNESS_EXPERIMENTS", "my-experiments")
    explain = ["harness.cli", "explain", "table-my-focal/mine", "--profile", "tiny"]
    for module in (["pytest", "-q", "-W", "error", "my-focal"], explain):
        done = subprocess.run([sys.executable, "-m", *module], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    assert "my_focal" in done.stdout
