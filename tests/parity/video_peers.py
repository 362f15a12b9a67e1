"""Video processors of `transformers` without torchvision: a stand-in is imported for it."""

import importlib
import sys
from typing import Any
from unittest import mock


def video_processor(family: str, name: str) -> Any:
    """Returns one without settings, for what needs no pixels."""
    names = ["", ".transforms", ".transforms.v2", ".transforms.v2.functional", ".io"]
    strangers = {f"torchvision{part}": mock.MagicMock() for part in names}
    sys.modules.update(strangers)
    try:
        module: Any = importlib.import_module(
            f"transformers.models.{family}.video_processing_{family}"
        )
    finally:
        for stranger in strangers:
            del sys.modules[stranger]
    return object.__new__(getattr(module, name))
