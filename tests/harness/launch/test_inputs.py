"""What ``harness run`` does where a finished run was made from other files than those that are there now."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace
from PIL import Image, ImageOps

from detector.data.digest import images_digest
from detector.data.splits import fingerprint, open_split
from detector.errors import UsageError
from detector.runs.job import EvalJob
from detector.runs.provenance import FileDigest, Inputs
from detector.runs.record import Record, content_hash
from detector.storage.files import write_json
from harness.launch import run as launching
from harness.launch.inputs import changed_inputs
from harness.launch.local import Failure, Slot
from harness.launch.run import Request, run_target
from harness.planning.plan import Cell, Plan
from harness.planning.selection import Selection
from harness.registry.load import Registry
from harness.status.find import RunFinder
from harness.store.records import Store
from harness.store.replaced import replaced_folders
from support.micro import micro_data, micro_job, write_experiments
from support.records import record_of

ROW = "table2/L6"


@pytest.fixture(scope="module")
def experiments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_experiments(tmp_path_factory.mktemp("registry") / "experiments")


@pytest.fixture(scope="module")
def drawn(experiments: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return micro_data(tmp_path_factory.mktemp("drawn") / "data", micro_job(experiments))


@pytest.fixture
def root(drawn: Path, experiments: Path, empty_folders: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data of one finished run of seed 0; nothing is trained by ``harness run``, only noted."""
    monkeypatch.setenv("HARNESS_EXPERIMENTS", str(experiments))
    monkeypatch.setattr(launching, "make_slots", lambda execution, runs: [Slot(())])
    monkeypatch.setattr(launching, "run_local", trained_nothing)
    root = Path(shutil.copytree(drawn, tmp_path / "data"))
    finish(Store(tmp_path / "runs", tmp_path / "results"), micro_job(experiments), root)
    return root


def trained_nothing(jobs: list, slots: object, view: object) -> list[Failure]:
    return [Failure(job.train.id, "asked to train", Path("log.txt")) for job in jobs]


def finish(store: Store, job: EvalJob, root: Path) -> Record:
    indices = {part: open_split(job.train.data, root, part) for part in ("train", "test")}
    splits = {part: fingerprint(job.train.data, root, part, index) for part, index in indices.items()}
    inputs = Inputs(train_images=images_digest(indices["train"]), test_images=images_digest(indices["test"]))
    record = replace(
        record_of(job), format=2, inputs=inputs, train_split=splits["train"], test_split=splits["test"], health=()
    )
    record = replace(record, sha256=content_hash(record))
    write_json(store.run_dir(job.train.id).job, job.train)
    write_json(store.run_dir(job.train.id).record(job.id), record)
    return record


def run(root: Path, **options: object) -> tuple[tuple[str, ...], list[str]]:
    said: list[str] = []
    request = Request(target=ROW, profile="tiny", data=root, **options)  # type: ignore[arg-type]
    result = run_target(request, said.append)
    return tuple(failure.train_id for failure in result.failed), said


def relabel(root: Path) -> None:
    path = root / "annotations" / "instances_train2017.json"
    content = json.loads(path.read_text())
    for item in content["annotations"]:
        item["category_id"] = 1 + item["category_id"] % 3
    path.write_text(json.dumps(content))


def invert(root: Path) -> None:
    for path in (root / "train2017").iterdir():
        ImageOps.invert(Image.open(path).convert("RGB")).save(path)


def exchange(root: Path) -> None:
    """Each test image takes the name of another one."""
    first, *others = sorted((root / "val2017").iterdir())
    content = [path.read_bytes() for path in (*others, first)]
    for path, data in zip((first, *others), content, strict=True):
        path.write_bytes(data)


@pytest.mark.parametrize(
    ("change", "said"),
    [(relabel, "training annotations: sha256"), (invert, "training images: sha256"), (exchange, "test images: sha256")],
)
def test_run_says_what_changed_since_and_trains_nothing(root: Path, change: Callable[[Path], None], said: str) -> None:
    assert run(root)[0] == ()
    change(root)
    with pytest.raises(UsageError, match=said) as caught:
        run(root)
    text = str(caught.value)
    assert "table2/L6, seed 0: " in text
    assert f"harness run {ROW} --profile tiny --data {root} --fresh" in text


def test_data_that_is_gone_has_not_changed(root: Path) -> None:
    shutil.rmtree(root / "train2017")
    shutil.rmtree(root / "annotations")
    assert run(root)[1][0] == "table2/L6, profile tiny: 1 run, 1 done, 0 to do."


def test_other_weights_under_the_same_name_have_changed(root: Path, experiments: Path, tmp_path: Path) -> None:
    job = micro_job(experiments)
    job = replace(job, train=replace(job.train, model=replace(job.train.model, weights="caffe2", backbone="resnet50")))
    plan = Plan(Registry(experiments).profile("tiny"), (Cell(ROW, 0, job),))
    store, mine, other = Store(tmp_path / "runs", tmp_path / "results"), tmp_path / "R-50.pkl", tmp_path / "other.pkl"
    mine.write_bytes(b"one")
    other.write_bytes(b"another")
    record = finish(store, job, root)
    digest = FileDigest(name="R-50.pkl", sha256="7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed")
    record = replace(record, inputs=replace(record.inputs or Inputs(), weights=digest))
    write_json(store.run_dir(job.train.id).record(job.id), replace(record, sha256=content_hash(record)))
    assert changed_inputs(plan, store, root, mine) == {}
    (what,) = changed_inputs(plan, store, root, other).values()
    assert what[0].startswith("weights (R-50.pkl): sha256 7692c3ad and ")


def test_fresh_keeps_the_old_folder_aside_counts_it_nowhere_and_trains(root: Path, tmp_path: Path) -> None:
    invert(root)
    train_id = micro_job_id(root)
    asked, said = run(root, fresh=True)
    assert asked == (train_id,)
    (kept,) = replaced_folders(tmp_path / "runs")
    assert any(str(kept) in line for line in said)
    assert list(kept.glob("evals/*/record.json"))
    assert Store(tmp_path / "runs", tmp_path / "results").records == []
    found = RunFinder(Selection(ROW, "tiny", [], None), seeds=0).find()
    assert (found.runs, found.others, found.replaced) == ((), 0, (kept,))


def micro_job_id(root: Path) -> str:
    (path,) = (root.parent / "runs").glob("*/job.json")
    return path.parent.name


def test_fresh_leaves_a_living_run_alone(root: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "runs", tmp_path / "results")
    folder = store.run_dir(micro_job_id(root))
    shutil.rmtree(folder.root / "evals")
    with folder.lock(), pytest.raises(UsageError, match=r"waits or runs. Stop it first: harness cancel table"):
        run(root, fresh=True)
    assert replaced_folders(store.runs) == []
    with pytest.raises(UsageError, match="neither --dry-run nor --retry-failed"):
        run(root, fresh=True, retry_failed=True)


@pytest.mark.parametrize(("change", "said"), [(relabel, "training annotations: sha256"), (invert, "training images")])
def test_a_run_that_is_begun_is_not_gone_on_with_from_other_files(
    root: Path, tmp_path: Path, experiments: Path, change: Callable[[Path], None], said: str
) -> None:
    job = micro_job(experiments)
    folder = Store(tmp_path / "runs", tmp_path / "results").run_dir(job.train.id)
    shutil.rmtree(folder.root / "evals")
    index = open_split(job.train.data, root, "train")
    annotations = fingerprint(job.train.data, root, "train", index).sha256
    write_json(folder.inputs, Inputs(train_annotations=annotations, train_images=images_digest(index)))
    folder.checkpoints.mkdir()
    (folder.checkpoints / "0000004.pt").touch()
    assert run(root)[0] == (job.train.id,)  # it would go on
    change(root)
    with pytest.raises(UsageError, match=f"made from other files .*\n.*{said}"):
        run(root)
