"""Rows, recipes, runs and records side by side. May import what ``harness.report`` may."""
