"""A model card as Markdown: its head, then what a person reads before using the weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from detector.runs.record import COCO_METRICS, OF_A_SIZE, Record
from detector.storage.shown import one_line
from harness.registry.ledger import plain
from harness.report.card.facts import CODE_LICENCE, UNKNOWN, CardFacts, began_with, data_licence
from harness.report.card.head import MEANING, card_head, loss_name, model_name
from harness.report.evidence.show import data_text
from harness.report.markup import markdown_escape

CITATION: Final = """```bibtex
@inproceedings{qian2020drloss,
  title     = {{DR} Loss: Improving Object Detection by Distributional Ranking},
  author    = {Qian, Qi and Chen, Lei and Li, Hao and Jin, Rong},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)},
  year      = {2020}
}
```"""


def model_card(facts: CardFacts, licence: str = UNKNOWN) -> str:
    """The card. licence: of the weights, as hubs name it; whoever publishes them decides it.

    The same record and files give the same bytes. Nothing from data can begin a tag, a link or a cell of a table.
    """
    record = facts.record
    parts = [
        card_head(facts, licence) + f"\n# {_escaped(model_name(record))}",
        _what(facts),
        _section("Intended use", _use(record)),
        _section("Results", _results(facts)),
        _section("Beside the paper", _beside_paper(facts)),
        _section("Limits", _bullets(_limits(facts))),
        _section("Data", _bullets(_data(record))),
        _section("How it was trained", [*_bullets(_training(facts)), "", *_settings(facts), *_departures(facts)]),
        _section("Files", _files(facts)),
        _section("How to load it", _loading(facts)),
        _section("Licence", _bullets(_licences(record, licence))),
        _section("Citation", ["The paper, whose authors made neither this model nor the software:", "", CITATION]),
    ]
    return "\n\n".join(parts) + "\n"


def _what(facts: CardFacts) -> str:
    record = facts.record
    train = record.job.train
    title = facts.profile.title if facts.profile is not None else "unknown here"
    rows = f"It fills {', '.join(facts.rows)}." if facts.rows else "It fills no row of a table."
    return _escaped(
        f"A RetinaNet ({train.model.backbone}) trained with the loss {loss_name(record)}, seed {train.seed}, at the "
        f"profile {record.profile} ({title}), by drloss-harness {record.code.version}, which reproduces the DR loss "
        f"(CVPR 2020). {rows} Training {record.train_id}, evaluation {record.eval_id}."
    )


def _use(record: Record) -> list[str]:
    data = _escaped(data_text(record.job.train.data))
    return [
        "To reproduce and to compare losses for object detection. It finds the objects of the classes that its "
        f"training data names, in images like those of that data: {data}. It was not made for decisions about people, "
        "or where a missed object does harm."
    ]


def _results(facts: CardFacts) -> Iterator[str]:
    record, ours = facts.record, facts.row.ours if facts.row is not None else {}
    n = len(facts.row.seeds) if facts.row is not None else 0
    split = record.job.split or "the profile's test split"
    images, boxes = f"{record.test_split.images:,}", f"{record.test_split.boxes:,}"
    yield f"On {_escaped(split)}, {images} images with {boxes} boxes. Unrounded numbers are in the head of this file."
    yield ""
    several = n > 1
    ref = facts.row.ref if facts.row is not None else ""
    yield from _table(
        ["metric", "this run", *([f"{ref}: mean ± deviation of {n} seeds"] if several else [])],
        [
            [
                f"{name} ({MEANING[name]})",
                _number(record.metrics.get(name)),
                *([_mean(ours[name].mean, ours[name].sd) if name in ours else ""] if several else []),
            ]
            for name in COCO_METRICS
            if name in record.metrics
        ],
    )


def _beside_paper(facts: CardFacts) -> Iterator[str]:
    if not facts.compared or facts.row is None:
        yield "Its numbers are not compared with the paper's: it is of another scale, or fills no row of the paper."
        return
    rows = [
        [name, _number(facts.row.ours[name].mean), f"{published:.1f}", _verdict(facts, name)]
        for name, published in facts.row.published.items()
        if name in facts.row.ours
    ]
    if rows:
        yield from _table(["metric", f"ours, n {len(facts.row.seeds)}", "paper", "verdict"], rows)
    else:
        yield "Its row has no result yet on the split that the paper's numbers are of."


def _verdict(facts: CardFacts, metric: str) -> str:
    verdict = facts.row.verdicts.get(metric) if facts.row is not None else None
    if verdict is None:
        return ""
    return f"{verdict.outcome}{' (provisional)' if verdict.provisional else ''}"


def _limits(facts: CardFacts) -> Iterator[str]:
    record = facts.record
    if facts.profile is not None and not facts.profile.compare_with_paper:
        yield f"Scale: {facts.profile.title}. Its numbers say nothing of the paper's."
    n = len(facts.row.seeds) if facts.row is not None else 1
    if n < 2:
        yield "One seed was run: how far the numbers scatter between seeds is unknown."
    lacking = [name for name in OF_A_SIZE if name in record.metrics and record.metrics[name] is None]
    if lacking:
        yield f"The test images have no object of some sizes, so that {', '.join(lacking)} are unknown."
    if record.health is None:
        yield "Its health (dead gradients, diverging boxes, ...) is unknown: its record is of format 1."
    yield from (f"{item.name}: {item.message}" for item in record.health or ())
    if record.code.modified:
        yield "It was trained by code with changes that no commit has."
    yield (
        "Not tested: images of other sources, damaged or hostile images, fairness between groups of people, how well "
        "its scores are calibrated, other test sizes than those below."
    )


def _data(record: Record) -> Iterator[str]:
    yield f"Data set: {data_text(record.job.train.data)}."
    inputs = record.inputs
    digests = (inputs.train_images, inputs.test_images) if inputs is not None else (None, None)
    for name, split, images in zip(("Training", "Test"), (record.train_split, record.test_split), digests, strict=True):
        content = f"names and sizes sha256 {images.names_and_sizes}" if images is not None else f"content {UNKNOWN}"
        if images is not None and images.content is not None:
            content += f", content sha256 {images.content}"
        yield (
            f"{name}: {split.images:,} images, {split.boxes:,} boxes; annotations sha256 {split.sha256}; image files: "
            f"{content}."
        )
    yield f"Began with: {began_with(record)}."


def _training(facts: CardFacts) -> Iterator[str]:
    record = facts.record
    train, code = record.job.train, record.code
    seconds = f"{record.train_seconds:,.0f} s of training, {record.eval_seconds:,.0f} s of evaluation"
    yield f"{train.schedule.iterations:,} iterations of {train.batch.images} images, seed {train.seed}."
    yield f"{seconds}, finished {record.finished}. Starts: {len(record.starts) or UNKNOWN}."
    changed = " with changes" if code.modified else ""
    yield f"Code: version {code.version}, commit {code.commit or UNKNOWN}{changed}."
    yield f"Environment: {', '.join(f'{name} {value}' for name, value in sorted(record.environment.items()))}."
    yield from (f"Note: {note}" for note in record.notes)


def _settings(facts: CardFacts) -> Iterator[str]:
    yield "Every setting, and where its value comes from:"
    yield ""
    yield from _table(
        ["setting", "value", "source"], [[path, plain(value), source] for path, value, source in facts.settings]
    )


def _departures(facts: CardFacts) -> Iterator[str]:
    if not facts.deviations:
        return
    yield ""
    yield "Where the paper, its released configuration, its base codebase and this run are not all equal:"
    yield ""
    yield from _table(
        ["setting", "used", "paper", "released", "base", "why"],
        [
            [item["path"], *(plain(item[name]) for name in ("used", "paper", "released", "base")), item["why"]]
            for item in facts.deviations
        ],
    )


def _files(facts: CardFacts) -> Iterator[str]:
    if not facts.files:
        yield "None is on the machine that wrote this card: the run's folder is elsewhere."
        return
    yield from _table(["file of the run's folder", "sha256"], [[name, digest] for name, digest in facts.files.items()])


def _loading(facts: CardFacts) -> list[str]:
    threshold = facts.record.job.test.score_threshold
    return [
        "With the files above in one folder, under these names, and drloss-harness installed:",
        "",
        "```python",
        "import detector",
        "",
        f'run = detector.load_run("{facts.record.train_id}")  # the folder',
        f'found = run.detect("image.jpg", min_score={threshold!r})',
        "```",
    ]


def _licences(record: Record, licence: str) -> Iterator[str]:
    yield f"These weights: {licence}" + (
        " (nobody has said under which licence they may be used)." if licence == UNKNOWN else "."
    )
    yield f"The code that trained them: {CODE_LICENCE}."
    yield f"The data: {data_licence(record)}."
    yield f"What the training began with: {began_with(record)}."


def _section(title: str, lines: Iterable[str]) -> str:
    return "\n".join([f"## {title}", "", *lines])


def _bullets(lines: Iterable[str]) -> Iterator[str]:
    yield from (f"- {_escaped(line)}" for line in lines)


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(map(_escaped, headings))} |"
    yield f"|{'---|' * len(headings)}"
    yield from (f"| {' | '.join(map(_escaped, row))} |" for row in rows)


def _escaped(text: Any) -> str:
    """On one line, without a tag, a link or the end of a cell."""
    return markdown_escape(one_line(str(text)))


def _number(value: float | None) -> str:
    return "none of that size" if value is None else f"{value:.1f}"


def _mean(mean: float, sd: float | None) -> str:
    return f"{mean:.1f}" if sd is None else f"{mean:.1f} ± {sd:.1f}"
