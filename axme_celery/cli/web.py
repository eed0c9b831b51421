"""``web``: serve the pages and the HTTP interface of a project."""

from __future__ import annotations

import importlib
import ipaddress
import secrets
from typing import TYPE_CHECKING, Any

import click

from .project import axme_of, login_name

if TYPE_CHECKING:
    from ..extension import Axme


@click.command(short_help="Serve the pages and the HTTP interface.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8710, show_default=True)
@click.option("--workers", type=click.IntRange(min=1), default=2, show_default=True, help="Processes.")
@click.option(
    "--threads",
    type=click.IntRange(min=2),
    help="Threads of each; a live page takes one. Default: axme_live_clients + 8.",
)
@click.option(
    "--dev", "is_dev", is_flag=True,
    help="On this machine only: needs no secret and no login, and prints a link to sign in by once, as admin.",
)  # fmt: skip
@click.pass_context
def web(ctx: click.Context, host: str, port: int, workers: int, threads: int | None, is_dev: bool) -> None:
    """Serve the pages and the HTTP interface, with gunicorn, until stopped.

    It refuses to start without axme_secret_key, and on an address that others reach while nobody could sign in:
    set axme_actor, axme_oidc_issuer or axme_proxy_addresses, or make a key.
    """
    need_extra()
    axme = axme_of(ctx)
    check_address(axme, host, is_dev)
    secret = secrets.token_urlsafe(48) if is_dev else None
    from ..web import create_app

    create_app(axme, secret_key=secret)  # what is wrong is better said here than by a worker
    if is_dev:
        click.echo(f"sign in once, as admin, within 12 hours: {sign_in_link(axme, host, port)}")
    axme.close()
    serve(axme, host, port, workers=workers, threads=threads, secret=secret)


def need_extra(otherwise: str = "") -> None:
    """Refuse where what the pages need is not installed. ``otherwise``: another way out, for the message."""
    missing = []
    for name in ("gunicorn", "flask_wtf", "markdown_it"):
        try:
            importlib.import_module(name)
        except ImportError:
            missing.append(name)
    if missing:
        raise click.UsageError(f"{', '.join(missing)} is not installed: pip install 'axme-celery[web]'{otherwise}")


def check_address(axme: Axme, host: str, is_dev: bool) -> None:
    """Refuse an address that others reach where nobody, or everybody on this machine, could sign in."""
    if is_loopback(host):
        return
    if is_dev:
        raise click.UsageError(f"--dev is for this machine only, and others reach {host}; use 127.0.0.1")
    settings = axme.settings
    if settings.actor or settings.proxy_addresses or settings.oidc_issuer:
        return
    known = axme.runtime.ledger.keys()
    if all(key.is_session for key in known):
        raise click.UsageError(
            f"others reach {host}, and nobody could sign in: set axme_actor (your own login), axme_oidc_issuer (your "
            f"accounts) or axme_proxy_addresses (a proxy's), or make a key with: "
            f"axme-celery keys create --name NAME --role admin"
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def sign_in_link(axme: Axme, host: str, port: int, *, name: str | None = None, next: str = "") -> str:
    """A link that signs in once, as admin."""
    from urllib.parse import urlencode

    from .. import keys

    _, secret = keys.create_link(axme.runtime, name=name or login_name(), role="admin")
    shown = f"[{host}]" if ":" in host else host
    query = {"link": secret} | ({"next": next} if next else {})
    return f"http://{shown}:{port}/sign-in?{urlencode(query)}"


def serve(axme: Axme, host: str, port: int, *, workers: int, threads: int | None, secret: str | None) -> None:
    """Run gunicorn in this process until it is stopped."""
    from gunicorn.app.base import BaseApplication

    from ..web import create_app, gunicorn_conf

    options = {
        **{name: getattr(gunicorn_conf, name) for name in ("worker_class", "graceful_timeout", "keepalive")},
        "control_socket_disable": True,
        "bind": f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
        "post_worker_init": gunicorn_conf.post_worker_init,
        "workers": workers,
        "threads": threads or axme.settings.live_clients + 8,
    }

    class Server(BaseApplication):  # type: ignore[misc]  # untyped
        def load_config(self) -> None:
            for name, value in options.items():
                # Older ones do not know every name.
                if name in self.cfg.settings:
                    self.cfg.set(name, value)

        def load(self) -> Any:
            return create_app(axme, secret_key=secret)

    Server().run()
