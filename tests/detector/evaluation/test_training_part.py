"""The health of a training and of its evaluation together."""

from __future__ import annotations

from detector.evaluation.training_part import joined_health
from detector.runs.findings import Health

DEAD, NONE = Health(name="dead level", message="P5"), Health(name="no detections", message="none")


def test_health_is_unknown_only_where_the_trainings_is_and_the_evaluation_shows_nothing() -> None:
    assert joined_health(None, ()) is None
    assert joined_health(None, (NONE,)) == (NONE,)
    assert joined_health((), ()) == ()
    assert joined_health((DEAD,), (NONE,)) == (DEAD, NONE)
