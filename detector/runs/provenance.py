"""Under what conditions a result came about, and from what files. Free of torch."""

from __future__ import annotations

from msgspec import Struct

from detector.runs.code import Code


class Start(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """One start of a training, or one evaluation: when, with what code, on what, and how.

    time: UTC, ISO 8601. iteration: how many steps a training had taken before. environment: versions and hardware
    (``device.environment``), without names of hosts, users or folders. The rest says how it was executed, on which the
    rounding of sums depends; threads are those of each process.
    """

    time: str
    code: Code
    environment: dict[str, str]
    processes: int
    threads: int
    precision: str
    iteration: int = 0
    groups_per_forward: int = 1
    compiled: bool = False
    deterministic: bool = False


class FileDigest(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A file by its content. name: as the publisher calls it, without its folder; sha256: of its bytes."""

    name: str
    sha256: str


class ImagesDigest(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """The image files of a split that the annotations name.

    images: how many; bytes: of all together. names_and_sizes: sha256 over the sorted lines "name size". content: sha256
    over the sorted lines "name sha256", of a file's bytes, or of a PNG's pixels, since its bytes depend on the library
    that wrote it; None where all files together are larger than 1 GB.
    """

    images: int
    bytes: int
    names_and_sizes: str
    content: str | None = None


class Inputs(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """The files that a training and its evaluation read. weights: None for a training from random weights.

    The annotations are in the record's splits.
    """

    weights: FileDigest | None = None
    train_images: ImagesDigest | None = None
    test_images: ImagesDigest | None = None
