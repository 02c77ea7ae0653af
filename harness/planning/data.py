"""Which data a plan's runs name, and where it lies."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from detector.errors import UsageError
from detector.runs.job import AnnotatedFolder, DataSource, Shapes
from harness.folders import named_folder
from harness.registry.declarations import Profile
from harness.registry.load import Registry
from harness.registry.resolve import eval_job, resolve


def data_source(registry: Registry, refs: list[str], profile: Profile, overrides: Mapping[str, Any]) -> DataSource:
    """The data that the first row names at a profile; recipes of one's own may name other data."""
    return eval_job(resolve(registry, refs[0], profile, overrides=overrides), 0).train.data


def data_root(source: DataSource, given: Path | None, runs: Path) -> Path:
    """Where the data lies: --data, HARNESS_DATA, or for a generated set a folder of its own under the runs.

    Raises UsageError where a COCO root is needed and none was named.
    """
    if isinstance(source, Shapes):
        from detector.data.shapes.generate import shapes_folder_name

        return given or runs / "data" / shapes_folder_name(source)
    return named_root(given)


def named_data(given: Path | None) -> Path | None:
    """--data, else $HARNESS_DATA. Raises UsageError where the variable names no folder."""
    return given or named_folder("HARNESS_DATA")


def named_root(given: Path | None) -> Path:
    """The COCO root of --data or HARNESS_DATA. Raises UsageError where neither names one."""
    named = named_data(given)
    if named is None:
        raise UsageError(
            "A COCO root (annotations/, train2017/, val2017/) is needed: name it with --data DIR or HARNESS_DATA. "
            "To get one: harness data download --out DIR (--images 64 for a small one)."
        )
    return named


def identify(source: DataSource, root: Path) -> DataSource:
    """The source with the identity of what lies at ``root``: a folder's annotation hashes."""
    if not isinstance(source, AnnotatedFolder):
        return source
    from detector.data.coco.files import annotations_sha256

    return msgspec.structs.replace(
        source,
        train_sha256=annotations_sha256(root, source.train_split),
        test_sha256=annotations_sha256(root, source.test_split),
    )
