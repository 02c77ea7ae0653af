"""The DR loss and the losses that it is compared with. Importing this package does not import torch (PEP 562).

Labels are int64, one per anchor: ``0 .. K-1`` a class, ``BACKGROUND`` (-1), or ``IGNORED`` (-2). The modules are in
``drloss.modules``, the formulas in ``drloss.functional``. The losses as declared data are in ``drloss.config``, the
table of all in ``drloss.registry``, those of other packages in ``drloss.plugins``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from drloss.labels import BACKGROUND, IGNORED

if TYPE_CHECKING:
    from drloss.modules import CrossEntropyLoss, DRLoss, FocalLoss
    from drloss.registry import build_loss

__all__ = ["BACKGROUND", "IGNORED", "CrossEntropyLoss", "DRLoss", "FocalLoss", "build_loss"]

_MODULES = {
    "CrossEntropyLoss": "drloss.modules",
    "DRLoss": "drloss.modules",
    "FocalLoss": "drloss.modules",
    "build_loss": "drloss.registry",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
