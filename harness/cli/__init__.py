"""The command line. May import every other room; nothing imports it."""

from __future__ import annotations

from harness.cli.app import app, main

__all__ = ["app", "main"]
