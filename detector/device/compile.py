"""The network under ``torch.compile``."""

from __future__ import annotations

import os
import shutil

from detector.errors import UsageError
from detector.model.retinanet import RetinaNet


def compile_network(model: RetinaNet) -> None:
    """Compile backbone and head in place, by torch.compile; losses and matching have kernels of their own.

    Raises UsageError where there is no C++ compiler, which torch.compile needs on every device.
    """
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        raise UsageError(
            f"The profile's execution says 'compile: true', which needs a C++ compiler; {compiler} is not on the PATH. "
            "Install it, name another one in CXX, or take 'compile' out of the profile."
        )
    # Sizes of images are symbols from the start: else each new one would be compiled anew.
    model.backbone.compile(dynamic=True)
    model.head.compile(dynamic=True)
