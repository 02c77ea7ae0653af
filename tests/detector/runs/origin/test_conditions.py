"""What is said of a training that was resumed under other conditions."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from detector.runs.code import Code
from detector.runs.origin.conditions import MOST_STARTS, changes, execution_notes, recorded_starts, starts_of
from detector.runs.provenance import Start

ENVIRONMENT = {"torch": "2.9.0", "device": "cpu (x86_64)", "cpu_capability": "AVX2", "driver": "550"}
START = Start(
    time="2026-01-01T00:00:00+00:00",
    code=Code(version="1", commit="a" * 40, modified=False),
    environment=ENVIRONMENT,
    processes=1,
    threads=2,
    precision="fp32",
)
H100 = {**ENVIRONMENT, "device": "cuda (NVIDIA H100)"}


def resumed(**changed: object) -> tuple[Start, Start]:
    return START, replace(START, iteration=4, time="2026-01-02T00:00:00+00:00", **changed)


def test_a_resume_under_the_same_conditions_says_nothing() -> None:
    assert execution_notes([START]) == execution_notes(resumed()) == ()
    assert execution_notes(resumed(environment={**ENVIRONMENT, "driver": "570", "python": "3.13"})) == ()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"threads": 4}, "1 processes of 2 threads, then 1 processes of 4 threads"),
        ({"groups_per_forward": 2}, "2 threads, 1 groups per forward pass, then 1 processes of 2 threads, 2 groups"),
        ({"environment": {**ENVIRONMENT, "torch": "2.10"}}, "2 threads, torch 2.9.0, then 1 processes of 2 threads, t"),
        ({"environment": {**ENVIRONMENT, "cpu_capability": "AVX512"}}, "cpu capability AVX2, then "),
        ({"environment": H100}, "1 processes of 2 threads, device cpu (x86_64), then 1 processes of 2 threads on NVI"),
        ({"compiled": True}, "then 1 processes of 2 threads, compiled"),
    ],
)
def test_a_resume_under_other_conditions_says_which(changed: dict[str, object], words: str) -> None:
    (note,) = execution_notes(resumed(**changed))
    assert words in note
    assert note.endswith("equal to an undisturbed run up to float rounding only")


def test_a_gpu_repeats_its_bits_only_where_it_is_told_to() -> None:
    on_gpu = replace(START, environment=H100)
    assert "1 processes of 2 threads on NVIDIA H100: equal to other runs" in execution_notes([on_gpu])[0]
    assert execution_notes([replace(on_gpu, deterministic=True)]) == ()


def test_a_resume_with_other_code_is_told() -> None:
    (note,) = execution_notes(resumed(code=Code(version="1", commit="b" * 40, modified=True, diff_sha256="c" * 64)))
    assert note.startswith("resumed with other code (aaaaaaaa, then bbbbbbbb with changes cccccccc)")


def test_what_an_older_checkpoint_did_not_note_is_unknown_and_no_change() -> None:
    (old,) = starts_of({"executions": [[1, 2]]}, "fp32")
    assert (old.time, old.code.commit, old.environment) == ("unknown", None, {})
    assert changes(old, replace(START, groups_per_forward=8)) == []
    assert changes(old, replace(START, threads=4)) == ["threads"]
    assert execution_notes([old, START]) == ()
    (gpu,) = starts_of({"executions": [[8, 2, True, "NVIDIA H100", True]]}, "bf16")
    assert (gpu.processes, gpu.compiled, gpu.deterministic, gpu.precision) == (8, True, True, "bf16")
    assert gpu.environment == {"device": "cuda (NVIDIA H100)"}


def test_of_very_many_starts_a_record_lists_the_first_and_the_last() -> None:
    starts = [replace(START, iteration=i) for i in range(1000)]
    listed = recorded_starts(starts)
    assert len(listed) == MOST_STARTS
    assert (listed[0].iteration, listed[-1].iteration) == (0, 999)
    assert "started 1000 times" in execution_notes(starts)[-1]
