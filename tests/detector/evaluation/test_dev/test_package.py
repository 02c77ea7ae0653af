"""The evaluation server's zip and its answers: limits by hand, pycocotools' own summary read back, and cut files."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from detector.data.coco.index import load_index
from detector.data.shapes.generate import generate_shapes
from detector.errors import UsageError
from detector.evaluation.detections import Detections
from detector.evaluation.scoring import coco_metrics
from detector.evaluation.test_dev.answer import KEYS, note, parse_answer, read_answer
from detector.evaluation.test_dev.package import best_of_each_image, check_name, file_stem, pack
from detector.runs.job import Shapes
from tests.answers import NUMBERS, PERCENT, TEST_DEV, json_text, scores_text, summary_text


def columns(rows: list[tuple[int, int, list[float], float]]) -> Detections:
    images, categories, boxes, scores = zip(*rows, strict=True)
    return Detections(np.array(images), np.array(categories), np.array(boxes, dtype=np.float64), np.array(scores))


def unzip(content: bytes) -> tuple[str, list[dict[str, object]]]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        (name,) = archive.namelist()
        return name, json.loads(archive.read(name))


def test_pack_writes_the_servers_file_with_rounded_numbers() -> None:
    found = columns([(7, 90, [1.005001, -0.001, 30.126, 4.0], 0.12345678), (5, 1, [0, 0, 1, 1], 1.0)])
    content, sent = pack(found, TEST_DEV, "mine")
    name, entries = unzip(content)
    assert name == "detections_test-dev2017_mine_results.json"
    assert file_stem(TEST_DEV, "mine") == "detections_test-dev2017_mine_results"
    assert entries == [
        {"image_id": 5, "category_id": 1, "bbox": [0, 0, 1, 1], "score": 1.0},
        {"image_id": 7, "category_id": 90, "bbox": [1.01, 0, 30.13, 4], "score": 0.123457},
    ]
    assert b"-0" not in json.dumps(entries).encode()
    assert (sent.name, sent.detections, sent.sha256) == ("mine", 2, hashlib.sha256(content).hexdigest())


def test_pack_gives_the_same_bytes_at_any_time(monkeypatch: pytest.MonkeyPatch) -> None:
    found = columns([(1, 1, [0, 0, 1, 1], 0.5)])
    before = pack(found, TEST_DEV, "mine")
    monkeypatch.setattr("time.time", lambda: 2e9)
    assert pack(found, TEST_DEV, "mine") == before
    with zipfile.ZipFile(io.BytesIO(before[0])) as archive:
        assert archive.infolist()[0].date_time == (1980, 1, 1, 0, 0, 0)


def test_pack_writes_an_empty_list_for_no_detections() -> None:
    assert unzip(pack(Detections.concatenate([]), TEST_DEV, "none")[0])[1] == []


def test_pack_keeps_the_best_hundred_of_each_image() -> None:
    scores = np.random.default_rng(0).permutation(130) / 1000
    rows = [(image, 1, [0.0, 0.0, 1.0, 1.0], float(score)) for score in scores for image in (2, 1)]
    content, sent = pack(columns([*rows, (3, 1, [0, 0, 1, 1], 0.0005)]), TEST_DEV, "many")
    entries = unzip(content)[1]
    assert sent.detections == len(entries) == 201
    expected = [k / 1000 for k in range(129, 29, -1)]
    assert [entry["score"] for entry in entries] == [*expected, *expected, 0.0005]
    assert [entry["image_id"] for entry in entries] == [1] * 100 + [2] * 100 + [3]


def test_best_of_each_image_keeps_the_first_of_equal_scores() -> None:
    found = columns([(4, category, [0, 0, 1, 1], score) for category, score in ((8, 0.5), (2, 0.9), (1, 0.5))])
    assert best_of_each_image(found, 2).category_ids.tolist() == [2, 8]


@pytest.mark.parametrize("name", ["a", "DR_r101.x-1", "0" * 100])
def test_check_name_takes_letters_digits_and_three_signs(name: str) -> None:
    check_name(name)


@pytest.mark.parametrize("name", ["", "a b", "a/b", "ä", "a\n", "0" * 101])
def test_check_name_rejects_others(name: str) -> None:
    with pytest.raises(UsageError, match="letters, digits, dots"):
        check_name(name)


def test_parse_answer_reads_what_pycocotools_prints(tmp_path: Path) -> None:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    generate_shapes(tmp_path / "root", Shapes(version=1, seed=0, size=96, num_train=1, num_test=12, num_classes=3))
    index = load_index(tmp_path / "root", "val2017")
    sides = index.boxes[:, 2:] - index.boxes[:, :2]
    rng = np.random.default_rng(0)
    boxes = np.concatenate([index.boxes[:, :2] + rng.normal(0, 1.5, sides.shape), sides], axis=1)
    image_ids = index.image_ids[index.positions()]
    found = Detections(image_ids, index.category_ids[index.labels], boxes, rng.random(len(boxes)))
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        truth = COCO(str(tmp_path / "root" / "annotations" / "instances_val2017.json"))
        rows = np.concatenate([image_ids[:, None], boxes, found.scores[:, None], found.category_ids[:, None]], axis=1)
        evaluation = COCOeval(truth, truth.loadRes(rows), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    text = printed.getvalue()
    assert "Accumulating" in text  # the twelve lines stand among others
    expected = {name: None if value is None else round(value, 1) for name, value in coco_metrics(index, found).items()}
    assert expected["APL"] is None  # 96 pixels hold nothing large
    assert 5 < expected["AP"] < 95  # type: ignore[operator]
    assert parse_answer(text, TEST_DEV) == expected


@pytest.mark.parametrize(
    "text",
    [
        summary_text(),
        "Evaluating...\n" + summary_text().rstrip("\n"),
        summary_text().replace("\n", "\r\n"),
        scores_text(),
        scores_text().replace("\n", "\r\n").replace(": ", " = "),
        "submission 12\n" + scores_text() + "done\n",
        scores_text(tuple(PERCENT.values())),
        summary_text() + scores_text(),
        json_text(),
        json_text(tuple(PERCENT.values())),
        json.dumps(dict(zip(KEYS, NUMBERS, strict=True))),
        json.dumps({"result": json.loads(json_text()) + json.loads(json_text((0.5,) * 12, "test-challenge2017"))}),
        json.dumps(dict(zip(KEYS, map(str, NUMBERS), strict=True)), indent=2),
        "\ufeff" + scores_text(),
    ],
)
def test_read_answer_takes_every_form(text: str, tmp_path: Path) -> None:
    path = tmp_path / "answer"
    path.write_bytes(text.encode())
    assert read_answer(path, TEST_DEV) == PERCENT


def test_parse_answer_takes_the_six_alone_and_none_of_a_size() -> None:
    lines = scores_text((0.4, 0.6, 0.5, -1, 0.0, 0.45, *NUMBERS[6:])).splitlines(keepends=True)
    expected = {"AP": 40, "AP50": 60, "AP75": 50, "APS": None, "APM": 0, "APL": 45}
    assert parse_answer("".join(lines[:6]), TEST_DEV) == expected


def test_parse_answer_takes_all_zeros() -> None:
    assert set(parse_answer(json_text((0.0,) * 12), TEST_DEV).values()) == {0.0}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "none of the server's numbers"),
        ("<html>404</html>", "none of the server's numbers"),
        ('[{"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1], "score": 0.5}]', "none of the server's numbers"),
        (scores_text().replace("AP_75", "AP_95"), "incomplete: no AP_75"),
        (summary_text().replace("= small | maxDets=100 ] = 0.235", "= small | maxDets=300 ] = 0.235"), "no AP_small"),
        (scores_text().replace("0.531", "0.53l"), "APL is '0.53l', not a number"),
        (json_text().replace("0.531", "null"), "APL is None, not a number"),
        (json_text().replace("0.531", "true"), "APL is True, not a number"),
        (json_text().replace("0.531", "[0.531]"), "not a number"),
        (json_text().replace("0.531", "NaN"), "APL is nan: out of range"),
        (scores_text().replace("0.531", "inf"), "APL is inf: out of range"),
        (json_text().replace("0.531", "1" + "0" * 400), "not a number"),
        (scores_text((*NUMBERS[:5], 100.5, *NUMBERS[6:])), "APL is 100.5: out of range"),
        (scores_text((*NUMBERS[:5], -0.5, *NUMBERS[6:])), "APL is -0.5: out of range"),
        (scores_text((-1, *NUMBERS[1:])), "AP is -1: out of range"),
        (scores_text().replace("0.531", "53.1"), r"mixes fractions \(AP 0.417\) with percent \(APL 53.1\)"),
        (scores_text((0.61, *NUMBERS[1:])), "AP 61 is above AP50 60.9"),
        (scores_text((0.417, 0.448, 0.609, *NUMBERS[3:])), "AP75 60.9 is above AP50 44.8"),
        (scores_text() + "AP: 0.418\n", "two values for AP: 0.417 and 0.418"),
        (summary_text() + scores_text().replace("0.531", "0.532"), "two values for APL: 0.531 and 0.532"),
        (json_text().replace('"AP": 0.417', '"AP": 0.417, "AP": 0.418'), "two values for AP"),
        (json_text(split="test-challenge2017"), "of test-challenge2017, not of test-dev2017"),
        (json_text(split="val2017"), "of val2017, not of test-dev2017"),
        ("[" * 100_000, "none of the server's numbers"),
    ],
)
def test_read_answer_refuses(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "answer.txt"
    path.write_text(text)
    with pytest.raises(UsageError, match=message) as caught:
        read_answer(path, TEST_DEV)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("make", [summary_text, scores_text, json_text])
def test_parse_answer_of_a_cut_text_is_right_or_refused(make: Callable[[], str]) -> None:
    text = make()
    complete = 0
    for length in range(len(text)):
        try:
            found = parse_answer(text[:length], TEST_DEV)
        except ValueError:
            continue
        complete += 1
        assert all(PERCENT[name] == value for name, value in found.items())
        assert set(found) >= {"AP", "AP50", "AP75", "APS", "APM", "APL"}
    assert complete < len(text) * 0.55  # most of the first half, the six AP, is refused


def test_read_answer_refuses_what_is_no_text(tmp_path: Path) -> None:
    for content in (pack(Detections.concatenate([]), TEST_DEV, "x")[0] + b"\xff", b"AP: 0.417\n" * 200_000):
        (tmp_path / "answer").write_bytes(content)
        with pytest.raises(UsageError, match="not text of the evaluation server"):
            read_answer(tmp_path / "answer", TEST_DEV)
    for path in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(UsageError, match=r"(cannot be read|not text).*server"):
            read_answer(path, TEST_DEV)


def test_note_says_how_precise_the_numbers_are() -> None:
    assert note({"AP": 41.7, "APS": None}) == "numbers of the evaluation server, as printed (3 decimals)"
    assert note({"AP": 41.73}) == "numbers of the evaluation server, as printed"


def test_reading_an_answer_does_not_load_torch() -> None:
    names = "detector.evaluation.test_dev.package, detector.evaluation.test_dev.answer, harness.cli.files.test_dev"
    code = f"import sys, {names}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).resolve().parents[4])
