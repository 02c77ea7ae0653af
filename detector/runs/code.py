"""The code that a result came from. Free of torch."""

from __future__ import annotations

from msgspec import Struct


class Code(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """The code that ran: the commit, and whether the checkout differed from it. None outside a checkout.

    ``diff_sha256``: of the packages' difference from the commit where there is one; the run's folder has its text.
    ``loss_sha256``: of the source of the package that the loss comes from; None for a built-in loss.
    """

    version: str
    commit: str | None
    modified: bool | None
    diff_sha256: str | None = None
    loss_sha256: str | None = None
