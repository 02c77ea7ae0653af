"""What two records that should share their inputs do not share."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from detector.runs.provenance import FileDigest, ImagesDigest, Inputs
from detector.runs.record import Record, content_hash, differences
from detector.storage.reading import read_json
from support.records import first_format

RECORDS = sorted((Path(__file__).parents[3] / "results" / "records" / "tiny").glob("*.json"))
IMAGES = ImagesDigest(images=4, bytes=400, names_and_sizes="a" * 64, content="b" * 64)
INPUTS = Inputs(weights=FileDigest(name="R-50.pkl", sha256="c" * 64), train_images=IMAGES, test_images=IMAGES)


@pytest.fixture
def old() -> Record:
    return first_format(read_json(RECORDS[0], Record))


@pytest.fixture
def new(old: Record) -> Record:
    return replace(old, format=2, inputs=INPUTS)


def test_what_one_record_does_not_know_is_no_difference(old: Record, new: Record) -> None:
    assert differences(old, new) == differences(new, old) == differences(new, new) == ()


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"weights": FileDigest(name="R-50.pkl", sha256="d" * 64)}, "weights (R-50.pkl): sha256 cccccccc and dddddddd"),
        ({"train_images": replace(IMAGES, content="d" * 64)}, "training images: sha256 bbbbbbbb and dddddddd"),
        ({"test_images": replace(IMAGES, content="d" * 64)}, "test images: sha256 bbbbbbbb and dddddddd"),
        (
            {"test_images": ImagesDigest(images=4, bytes=401, names_and_sizes="e" * 64)},
            "test images: 4 files of 400 bytes and 4 of 401, names and sizes differ",
        ),
    ],
)
def test_other_files_under_the_same_names_are_told(new: Record, inputs: dict[str, object], said: str) -> None:
    assert differences(new, replace(new, inputs=replace(INPUTS, **inputs))) == (said,)


def test_the_same_pixels_in_files_of_other_sizes_are_no_difference(new: Record) -> None:
    written_elsewhere = replace(IMAGES, bytes=401, names_and_sizes="e" * 64)
    assert differences(new, replace(new, inputs=replace(INPUTS, train_images=written_elsewhere))) == ()


def test_other_annotations_are_told_of_records_of_the_first_format_too(old: Record) -> None:
    train = replace(old, train_split=replace(old.train_split, sha256="f" * 64))
    test = replace(old, test_split=replace(old.test_split, sha256="f" * 64))
    assert [text.split(":")[0] for text in differences(old, train)] == ["training annotations"]
    assert [text.split(":")[0] for text in differences(old, test)] == ["test annotations"]


def test_what_the_jobs_name_differently_is_a_setting_and_no_difference_of_inputs(new: Record) -> None:
    model = replace(new.job.train.model, weights="caffe2")
    job = replace(new.job, train=replace(new.job.train, model=model))
    weights = FileDigest(name="R-50.pkl", sha256="d" * 64)
    assert differences(new, replace(new, job=job, eval_id=job.id, inputs=replace(INPUTS, weights=weights))) == ()


def test_a_record_of_a_component_that_changed_since_is_told(old: Record) -> None:
    outdated = replace(old, eval_id="0" * 16)
    assert differences(old, outdated) == ("semantics: one was made before a component's results were changed",)
    assert differences(outdated, outdated) == ()


def test_the_content_hash_is_of_every_field_but_itself(new: Record) -> None:
    told = content_hash(new)
    assert content_hash(replace(new, sha256=told)) == told
    assert content_hash(replace(new, train_seconds=new.train_seconds + 1)) != told
