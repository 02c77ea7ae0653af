"""Runs tidecv, the tool of TIDE's authors, and writes how much AP it says each kind of error costs.

Peer: tidecv 1.0.1 of PyPI, nothing changed. It is no dependency of the tests, because it brings OpenCV and a window
system's libraries with it. By hand, never from a test:

    python -m tests.fidelity.peers.run_tidecv --out tests/data/tidecv.json

in an environment with tidecv. tests/data/README.md says what is written.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tidecv import TIDE, Data
from tidecv.errors.main_errors import BackgroundError, BoxError, ClassError, DuplicateError, MissedError, OtherError

from tests.fidelity.peers.tide_problems import CATEGORIES, IMAGES, SEEDS, Problem, problem

KINDS = (ClassError, BoxError, OtherError, DuplicateError, BackgroundError, MissedError)
GROUPS = {"1": (1, 1), "2-4": (2, 4), "5-9": (5, 9), "10+": (10, 1000)}


def main() -> None:
    """Read the command line, run the peer, write its answers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="the .json to write")
    options = parser.parse_args()
    lines = [f'  "{seed}": {json.dumps(_answers(problem(seed)))}' for seed in SEEDS]
    options.out.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def _answers(scene: Problem) -> dict[str, Any]:
    objects = {image: sum(row[1] == image and not row[5] for row in scene.truth) for image in IMAGES}
    groups = {}
    for name, (low, high) in GROUPS.items():
        images = [image for image in IMAGES if low <= objects[image] <= high]
        if images:
            groups[name] = _numbers(_run(scene, scene.ranked(), images), scene, images)
    return {
        "all": _numbers(_run(scene, scene.ranked(), IMAGES), scene, IMAGES),
        "as it is": _raw(_run(scene, scene.found, IMAGES)),
        "objects": groups,
    }


def _run(scene: Problem, found: Sequence[Any], images: Sequence[int]) -> Any:
    truth, results = Data("truth", max_dets=1000), Data("found", max_dets=1000)
    for image in images:
        truth.add_image(image, str(image))
        results.add_image(image, str(image))
    for category in CATEGORIES:
        truth.add_class(category, str(category))
    for _, image, category, box, _, crowd in scene.truth:
        if image in images:
            (truth.add_ignore_region if crowd else truth.add_ground_truth)(image, category, box=box)
    for image, category, box, score in found:
        if image in images:
            results.add_detection(image, category, score, box=box)
    return TIDE().evaluate(truth, results, mode=TIDE.BOX)


def _raw(run: Any) -> list[float]:
    """AP50 and the six numbers, as tidecv prints them."""
    return [run.ap, *run.fix_main_errors(error_types=list(KINDS)).values()]


def _numbers(run: Any, scene: Problem, images: Sequence[int]) -> dict[str, list[float]]:
    """``all``: AP50 and the six numbers over the categories of which there is truth; by category the same."""
    known = sorted({row[2] for row in scene.truth if row[1] in images and not row[5]})
    after = [run.fix_errors(_is(kind)) for kind in KINDS]

    def mean(data: Any) -> float:
        found = [data.objs[category].get_ap() for category in known if not data.objs[category].is_empty()]
        return sum(found) / len(found)

    answers = {"all": [mean(run.ap_data), *(max(mean(data) - mean(run.ap_data), 0) for data in after)]}
    for category in known:
        before = run.ap_data.objs[category].get_ap()
        answers[str(category)] = [before, *(data.objs[category].get_ap() - before for data in after)]
    return answers


def _is(kind: type) -> Callable[[Any], bool]:
    return lambda error: isinstance(error, kind)


if __name__ == "__main__":
    main()
