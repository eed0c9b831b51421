"""Where a tool reports its job: an address with a token of its own, which can be given to the tool before anybody waits.

The token is made of the tool's and the job's names with the project's secret, so it needs no table, is good for this
one job only, and nobody can make another from it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from urllib.parse import quote

from .answer import tool_job
from .config import Settings
from .errors import BadInput, BadSetting
from .leg import current


def callback_url(tool: str, job_id: str) -> str:
    """The address at which this tool reports this job, by POST: ``{"result": ...}``, ``{"error": ...}`` or a heartbeat.

    For use in a task. Hand it to the tool when you start the job; a report that comes before the task waits is kept.
    Raises BadInput outside a leg (use ``axme.callback_url`` there), BadSetting without ``axme_base_url`` and
    ``axme_secret_key``.
    """
    running = current()
    if running is None:
        raise BadInput("callback_url() works inside a leg; elsewhere use axme.callback_url(tool, job_id)")
    return url(running.rt.settings, tool, job_id)


def url(settings: Settings, tool: str, job_id: str) -> str:
    """The same with settings given."""
    tool_job(tool, job_id)
    if "/" in tool or {".", ".."} & set(job_id.split("/")):
        raise BadInput("a callback URL cannot name a tool with a slash, or a job whose id has '.' or '..' for a part")
    if not settings.base_url:
        raise BadSetting("a callback URL needs axme_base_url, the address under which your pages are reached")
    base = settings.base_url.rstrip("/")
    return f"{base}/v1/tools/{quote(tool, safe='')}/jobs/{quote(job_id, safe='')}?token={token(settings, tool, job_id)}"


def token(settings: Settings, tool: str, job_id: str) -> str:
    """The secret by which this tool's report of this job is known: 256 bits, as text of 43 characters."""
    if not settings.secret_key:
        raise BadSetting("tokens of tools are made with axme_secret_key; set it, the same in every process")
    said = f"tool-callback\0{tool}\0{job_id}".encode()
    made = hmac.digest(settings.secret_key.encode(), said, hashlib.sha256)
    return base64.urlsafe_b64encode(made).rstrip(b"=").decode()


def is_token(settings: Settings, tool: str, job_id: str, shown: str) -> bool:
    """Whether this is that secret."""
    if not settings.secret_key:
        return False
    return hmac.compare_digest(token(settings, tool, job_id).encode(), shown.encode("utf-8", "replace"))


__all__ = ["callback_url", "is_token", "token", "url"]
