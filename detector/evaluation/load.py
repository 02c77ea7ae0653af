"""A run's folder as a detector: what a notebook loads and asks about images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec
from PIL import Image

from detector.build import build_trained
from detector.data.coco.files import is_in_root
from detector.data.images import as_rgb, read_image
from detector.errors import DataError, RecordError
from detector.evaluation.inference import detect_image
from detector.model.retinanet import RetinaNet
from detector.runs.folder import RunDir, read_train_job
from detector.runs.job import TestSettings
from detector.weights.final import read_final


class Found(msgspec.Struct, frozen=True):
    """One object: its category's name, score (0..1) and box (x1, y1, x2, y2 in pixels of the upright image)."""

    name: str
    score: float
    box: tuple[float, float, float, float]


@dataclass(frozen=True)
class TrainedRun:
    """A training's final weights, ready to use.

    model: ``RetinaNet`` in eval mode; ``model.test`` are its test settings. names, category_ids: of the classes
    0 .. K-1, as the training's annotations have them.
    """

    model: RetinaNet
    names: tuple[str, ...]
    category_ids: tuple[int, ...]

    def detect(self, image: Image.Image | Path | str, *, min_score: float = 0.0) -> list[Found]:
        """The objects of an image or image file, best first, tested as the run's own evaluation was.

        image: a PIL image, which is not turned, or a file, which is turned as its EXIF orientation says; an image of a
        COCO root is not, since its boxes are those of the pixels as stored.
        min_score: leave out what scores less; scores of a DR loss are around 0.5, a focal loss's are lower.
        Raises DataError for a file that is no image.
        """
        opened = _given(image) if isinstance(image, Image.Image) else open_upright(Path(image))
        result = detect_image(self.model, opened, self.model.test)
        labels, scores, boxes = (result[key].cpu().tolist() for key in ("labels", "scores", "boxes"))
        return [
            Found(self.names[label], score, (box[0], box[1], box[2], box[3]))
            for label, score, box in zip(labels, scores, boxes, strict=True)
            if score >= min_score
        ]


def load_run(folder: Path | str, *, device: str = "cpu", test: TestSettings | None = None) -> TrainedRun:
    """The detector that a run trained, from the run's folder.

    >>> import detector
    >>> run = detector.load_run("runs/my-detector")
    >>> found = run.detect("street.jpg", min_score=0.6)
    >>> [(one.name, one.score, one.box) for one in found[:1]]  # doctest: +ELLIPSIS
    [('person', 0.9..., (..., ..., ..., ...))]

    device: where the model runs, as torch names it ("cpu", "cuda"). test: how images are resized and boxes are chosen;
    None takes the settings that the run was evaluated with. Raises RecordError for a folder that is no run, is not
    trained to the end, or (without ``test``) was never evaluated, and WeightsError for weights that are damaged, of
    another training or of another network.
    """
    run = RunDir(Path(folder))
    for path in (run.job, run.final):
        if not path.is_file():
            raise RecordError(
                f"{run.root} is not the folder of a finished training: it has no {path.relative_to(run.root)}. "
                "'harness status' names the run of each row, 'harness run' finishes one."
            )
    job, settings = read_train_job(run), test or _recorded_test(run)
    final = read_final(run, job)
    model = build_trained(job, final, test=settings, device=device)
    return TrainedRun(model, tuple(final["category_names"]), tuple(final["category_ids"]))


def _recorded_test(run: RunDir) -> TestSettings:
    """The test settings of a run folder's own record. Raises RecordError where it was never evaluated."""
    for path in sorted((run.root / "evals").glob("*/record.json")):
        record = run.read_record(path.parent.name)
        if record is not None:
            return record.job.test
    raise RecordError(
        f"{run.root} has no finished evaluation to take the test settings from. 'harness run' evaluates it; in Python, "
        "give load_run the settings as test=."
    )


def open_upright(path: Path) -> Image.Image:
    """An image file of any mode as RGB, turned as its EXIF orientation says, but for an image of a COCO root.

    Raises DataError for a file that is no image, is too large, or holds more than 16 bits per channel.
    """
    return read_image(path, upright=not is_in_root(path))


def _given(image: Image.Image) -> Image.Image:
    try:
        return as_rgb(image)
    except DataError as error:
        raise DataError(f"The image cannot be used: {error}.") from error
