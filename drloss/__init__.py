"""The DR loss and the losses that it is compared with. Importing this package does not import torch (PEP 562).

Labels are int64 anchor labels: ``0 .. K-1`` a class, ``BACKGROUND``, or ``IGNORED``. The formulas are in
``drloss.functional``, the modules in ``drloss.losses``, the losses as declared data in ``drloss.config``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from drloss.build import build_loss
    from drloss.losses import CrossEntropyLoss, DRLoss, FocalLoss

__all__ = ["BACKGROUND", "IGNORED", "CrossEntropyLoss", "DRLoss", "FocalLoss", "build_loss"]

BACKGROUND: Final = -1
IGNORED: Final = -2

_MODULES = {
    "CrossEntropyLoss": "drloss.losses",
    "DRLoss": "drloss.losses",
    "FocalLoss": "drloss.losses",
    "build_loss": "drloss.build",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
