"""The project a verb works on: its Celery app, its ``Axme``, and who is at the keyboard."""

from __future__ import annotations

import functools
import getpass
import importlib
import os
import sys
import traceback
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..errors import AxmeError

if TYPE_CHECKING:
    from celery import Celery

    from ..extension import Axme

Verb = TypeVar("Verb", bound=Callable[..., Any])

#: How long a verb that has done its work waits for its messages to leave.
DRAIN_SECONDS = 3.0


class Project:
    """The project named by ``-A``; loaded at its first use, so that ``demo`` and ``--help`` need none."""

    def __init__(self, name: str | None, folder: str | None) -> None:
        self._name = name
        if folder is not None:
            os.chdir(folder)

    @functools.cached_property
    def app(self) -> Celery:
        """The Celery app. Raises UsageError when there is none of that name."""
        if self._name is None:
            raise click.UsageError("which project? Say it with -A proj (as for the celery command), or in AXME_APP")
        try:
            return _found(self._name)
        except AxmeError:
            raise
        except Exception as error:
            module = self._name.partition(":")[0]
            missing = isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}.")
            if not missing and not isinstance(error, _NoApp):
                # It is the project's own code that failed: its author needs to see where.
                traceback.print_exc()
            raise click.UsageError(f"cannot load the app {self._name!r}: {error or type(error).__name__}") from None


class _NoApp(Exception):
    """The project's code is sound, and has no app of that name."""


def _found(name: str) -> Celery:
    """The app of this name. Raises _NoApp, or what the project's own code raises."""
    from celery import Celery
    from celery.app.utils import find_app

    module, _, attribute = name.partition(":")
    try:
        found = find_app(name)
    except (AttributeError, ModuleNotFoundError) as error:
        holder = sys.modules.get(module)
        if holder is None or not _is_celerys_own(error, name):
            raise
        if not attribute and hasattr(holder, "__path__"):
            # Celery looked there as well, and says nothing of an import that failed in it.
            _import_if_there(f"{module}.celery")
        said = (
            f"the module {module!r} has no {attribute!r}" if attribute else f"the module {module!r} has no Celery app"
        )
        raise _NoApp(said + _apps_of(holder)) from None
    if isinstance(found, Celery):
        return found
    holder = sys.modules.get(module)
    raise _NoApp(f"{attribute or 'app'!r} of the module {module!r} is no Celery app{_apps_of(holder)}")


def _is_celerys_own(error: AttributeError | ModuleNotFoundError, name: str) -> bool:
    """Whether Celery looked for this name in vain, rather than code that it imported for something else."""
    if isinstance(error, ModuleNotFoundError):
        # Its last try, of "module:attribute" as a whole, is what it says was not found.
        return ":" in name and error.name == name
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return frame.f_globals.get("__name__") in ("celery.app.utils", "kombu.utils.imports")


def _import_if_there(module: str) -> None:
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise


def _apps_of(holder: ModuleType | None) -> str:
    """What may have been meant."""
    from celery import Celery

    names = [name for name, value in vars(holder).items() if isinstance(value, Celery)] if holder else []
    return f"; of Celery apps it has: {', '.join(names)}" if names else ""


def axme_of(ctx: click.Context) -> Axme:
    """The ``Axme`` of the project. Raises UsageError when its app has none."""
    app = ctx.obj.app
    axme: Axme | None = getattr(app, "axme", None)
    if axme is None:
        raise click.UsageError(
            f"the app {app.main or 'of this project'!r} has no Axme; name the project with -A, "
            f"and put axme = Axme(app) beside its Celery app"
        )
    return axme


def with_axme(verb: Callable[..., Any]) -> Callable[..., Any]:
    """Give a verb the project's Axme, and send what the verb committed before the process ends."""

    @click.pass_context
    @functools.wraps(verb)
    def called(ctx: click.Context, /, *args: Any, **kwargs: Any) -> Any:
        axme = axme_of(ctx)
        try:
            return verb(axme, *args, **kwargs)
        finally:
            if not axme.drain(DRAIN_SECONDS):
                click.echo("note: the broker did not take everything yet; the next sweep sends the rest", err=True)
            axme.close()

    return called


def by_option(verb: Verb) -> Verb:
    """``--by``: who does this; it is kept in the history."""
    option = click.option(
        "--by",
        envvar="AXME_ACTOR",
        default=login_name,
        show_default="AXME_ACTOR, else your login name",
        metavar="NAME",
        help="Who does this; kept in the history.",
    )
    return option(verb)


def login_name() -> str:
    """The name of the user of this process. Raises UsageError where it has none (a container's bare uid)."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        raise click.UsageError("this user has no name; say who you are with --by NAME, or in AXME_ACTOR") from None


def json_option(verb: Verb) -> Verb:
    """``--json``: one JSON document instead of words; moments are ISO 8601."""
    return click.option("--json", "as_json", is_flag=True, help="One JSON document; times are ISO 8601.")(verb)


def limit_option(default: int) -> Callable[[Verb], Verb]:
    """``--limit``: how many at most."""
    return click.option(
        "--limit", type=click.IntRange(min=1), default=default, show_default=True, help="How many at most."
    )
