"""The examples in docstrings, run."""

from __future__ import annotations

import doctest

FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


def run_examples(function: object) -> int:
    """Run a function's examples and return how many there were; AssertionError with what was printed instead."""
    failures: list[str] = []
    runner, count = doctest.DocTestRunner(optionflags=FLAGS, verbose=False), 0
    for example in doctest.DocTestFinder(recurse=False).find(function, globs={}):
        runner.run(example, out=failures.append)
        count += len(example.examples)
    assert not failures, "".join(failures)
    return count
