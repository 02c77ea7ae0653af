"""The command line. May import every other room; nothing imports it."""

from __future__ import annotations

from harness.cli import interrupts

interrupts.listen()  # before what is slow to import

from harness.cli.app import app, main  # noqa: E402

__all__ = ["app", "main"]
