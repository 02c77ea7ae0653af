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

    train_annotations: the sha256 of the file that the training read; the record's splits have those of both.
    """

    weights: FileDigest | None = None
    train_annotations: str | None = None
    train_images: ImagesDigest | None = None
    test_images: ImagesDigest | None = None


def unequal(a: Inputs, b: Inputs) -> list[str]:
    """In words, the files in which two inputs differ; what one of them does not know is no difference."""
    return [
        *unlike_weights(a, b),
        *unlike("training annotations", a.train_annotations, b.train_annotations),
        *unlike_images("training images", a.train_images, b.train_images),
        *unlike_images("test images", a.test_images, b.test_images),
    ]


def unlike_weights(a: Inputs, b: Inputs) -> list[str]:
    """As ``unequal``, of the weights that a training began with."""
    if a.weights is None or b.weights is None:
        return []
    return unlike(f"weights ({a.weights.name})", a.weights.sha256, b.weights.sha256)


def unlike_images(name: str, a: ImagesDigest | None, b: ImagesDigest | None) -> list[str]:
    """By content where both know it: the same pixels written by another library are files of other sizes."""
    if a is None or b is None:
        return []
    if a.content and b.content:
        return unlike(name, a.content, b.content)
    if (a.images, a.names_and_sizes) != (b.images, b.names_and_sizes):
        return [
            f"{name}: {a.images:,} files of {a.bytes:,} bytes and {b.images:,} of {b.bytes:,}, names and sizes differ"
        ]
    return []


def unlike(name: str, a: str | None, b: str | None) -> list[str]:
    """Of two sums; () where they are equal or one is not known."""
    return [f"{name}: sha256 {a[:8]} and {b[:8]}"] if a and b and a != b else []
