"""Durable intents over the Celery you already run: submit, wait, complete.

The public names (``public.py``) are loaded when one of them is first asked for: pytest and the ``celery`` command
import this package too, to find its plugins, and need not wait for Celery and SQLAlchemy each time.
"""

import sys
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .public import *  # noqa: F403
    from .public import __all__ as __all__

__version__ = "0.1.0"


class _Unloaded(ModuleType):
    """This package until its public names are loaded."""

    def __getattr__(self, name: str) -> Any:
        is_module = name != "step" and find_spec(f"{__name__}.{name}") is not None
        if is_module or (name.startswith("__") and name != "__all__"):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        public = import_module(f"{__name__}.public")
        self.__class__ = ModuleType  # type: ignore[assignment]
        vars(self).update({each: getattr(public, each) for each in public.__all__}, __all__=public.__all__)
        return getattr(self, name)

    def __setattr__(self, name: str, value: object) -> None:
        # ``step`` here is the decorator. Loading the module of that name, which Python notes here, must not hide it.
        if name != "step":
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Unloaded
