"""The pages of ``harness images``: the best and worst images of one evaluation, or what changed between two."""

from __future__ import annotations

from functools import partial

from harness.figures.images.choose import Change, best_and_worst, changed, image_aps
from harness.figures.images.gallery import Gallery, Item, Section
from harness.figures.images.panels import Shown, counts, pair, panel
from harness.figures.images.scenes import Scene

AP50_OF_AN_IMAGE = (
    "AP50 of an image: its detections of all categories in one ranking; (1/objects) times the sum over the true ones "
    "of the best precision from there on. A box is true where its IoU with an object of its category that nothing "
    "better scored has found is at least 0.5, as in COCO's matching. Images without objects are left out."
)


def gallery_of_one(scene: Scene, count: int) -> Gallery:
    """The ``count`` best and worst images of an evaluation."""
    best, worst = best_and_worst(scene, count)
    values = image_aps(scene)

    def item(position: int) -> Item:
        title = f"image {_id(scene, position)}: AP50 {100 * values[position]:.1f}"
        return _item(panel(scene, position, [title]), title, f"{counts(scene, position)}.")

    return Gallery(
        title=f"Images of {scene.name}",
        text=[_of(scene), AP50_OF_AN_IMAGE, _how_drawn(), f"Drawn are {scene.threshold}."],
        sections=[
            Section("Worst images", _by("lowest"), [partial(item, position) for position in worst]),
            Section("Best images", _by("highest"), [partial(item, position) for position in best]),
        ],
    )


def gallery_of_two(a: Scene, b: Scene, count: int) -> Gallery:
    """The ``count`` images on which either is above the other by most, side by side.

    Raises DataError where they are of different images.
    """
    above, below = changed(a, b, count)

    def item(one: Change) -> Item:
        words = (one.ap, one.other)
        titles = tuple([f"{scene.name}: AP50 {100 * ap:.1f}"] for scene, ap in zip((a, b), words, strict=True))
        caption = "; ".join(f"{scene.name}: {counts(scene, one.position)}" for scene in (a, b))
        title = f"image {_id(a, one.position)}: AP50 {100 * one.ap:.1f} and {100 * one.other:.1f}"
        return _item(pair((a, b), one.position, (titles[0], titles[1])), title, f"{caption}.")

    pairs = list(zip(image_aps(a).values(), image_aps(b).values(), strict=True))
    largest = "The largest differences first."
    better, worse = sum(x > y for x, y in pairs), sum(x < y for x, y in pairs)
    return Gallery(
        title=f"Images that changed between {a.name} and {b.name}",
        text=[
            f"{_of(a)} {_of(b)}",
            f"Of {len(pairs):,} images with objects, {a.name} has the higher AP50 on {better:,}, {b.name} on "
            f"{worse:,}; {len(pairs) - better - worse:,} have the same.",
            AP50_OF_AN_IMAGE,
            _how_drawn(),
            f"Drawn are, of {a.name}, {a.threshold}; of {b.name}, {b.threshold}.",
        ],
        sections=[
            Section(f"Better with {a.name}", largest, [partial(item, one) for one in above], wide=True),
            Section(f"Better with {b.name}", largest, [partial(item, one) for one in below], wide=True),
        ],
    )


def _how_drawn() -> str:
    return (
        "T with a solid line: a true box. F with a dashed line: a false one. M with a dotted line: an object that no "
        "drawn box finds. Hatched: a crowd, which is not counted, nor is a grey box on it."
    )


def _of(scene: Scene) -> str:
    record, train = scene.record, scene.record.job.train
    return (
        f"{scene.name}: profile {record.profile}, seed {train.seed}, evaluation {record.eval_id}, "
        f"AP {record.metrics['AP']:.1f} on {scene.index.num_images:,} images of {scene.index.split}."
    )


def _by(which: str) -> str:
    return f"The {which} AP50 first; of equals those with more objects."


def _id(scene: Scene, position: int) -> int:
    return int(scene.index.image_ids[position])


def _item(shown: Shown, title: str, caption: str) -> Item:
    from detector.evaluation.pictures.frame import jpeg

    picture, words = shown.picture, f"{title}; {caption}{shown.note}"
    return Item(jpeg(picture), picture.width, picture.height, words, words, unread=shown.unread)
