"""A profile without records: the table and the verdicts say which profiles have some."""

from __future__ import annotations

import pytest

from harness.planning.selection import Selection, records_elsewhere
from harness.registry.load import Registry
from harness.report.formats import render_check, render_tables
from harness.report.views import judge, table_views
from tests.harness.report.progress.test_in_flight import finish, job_of

pytestmark = pytest.mark.usefixtures("empty_folders")
SENTENCE = "No record at profile paper, but 2 at tiny: add -p tiny."


def test_a_table_and_a_check_without_records_say_where_there_are_some() -> None:
    registry = Registry()
    finish(job_of(registry, "table2/focal"), 30.0)
    finish(job_of(registry, "table2/L6"), 31.0)
    selection = Selection("table2", "paper", [], None)
    assert records_elsewhere(selection) == SENTENCE
    assert SENTENCE in render_tables(table_views(selection), "text")
    assert SENTENCE in render_check(judge(selection), "text")
    assert records_elsewhere(Selection("table2", "tiny", [], None)) == ""
    assert records_elsewhere(Selection("table2/L8", "paper", [], None)) == ""  # of other rows
    assert records_elsewhere(Selection(["table1", "table3"], "paper", [], None)).startswith(
        "No record at profile paper, but 1 at tiny"
    )


def test_nothing_is_said_where_there_is_nothing_at_all() -> None:
    assert records_elsewhere(Selection("table2", "paper", [], None)) == ""
