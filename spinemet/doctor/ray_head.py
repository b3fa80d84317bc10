"""Whether jobs can be submitted to a Ray head: its Jobs API, its token, its version."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from contextlib import suppress
from http.client import HTTPException
from importlib.metadata import version
from pathlib import Path

from spinemet.doctor.findings import Finding, Level

TIMEOUT_S = 5
_ASKS_FOR_TOKEN, _REFUSES_TOKEN = 401, 403
_SET_TOKEN = "Set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN (or RAY_AUTH_TOKEN_PATH) as on the head."


def check_head(address: str) -> Finding:
    """Whether the head at `address` (http://HOST:8265) answers, asks for a token, and takes the one that is set here.

    Asks as `ray job submit` does, with a time limit, which Ray's own client does not have.
    """
    try:
        try:
            return _compared(_ray_version(address, ""), is_open=True)
        except urllib.error.HTTPError as error:
            if error.code != _ASKS_FOR_TOKEN:
                raise
        token = _token()
        if os.environ.get("RAY_AUTH_MODE") != "token" or not token:
            return _problem("the head asks for a token and none is set here", _SET_TOKEN)
        return _compared(_ray_version(address, token), is_open=False)
    except urllib.error.HTTPError as error:
        if error.code == _REFUSES_TOKEN:
            return _problem("the head does not take the token that is set here", _SET_TOKEN)
        cause = f"HTTP status {error.code}"
    except (OSError, HTTPException, ValueError, KeyError, TypeError) as error:
        reason = getattr(error, "reason", error)
        cause = getattr(reason, "strerror", None) or str(reason) or type(error).__name__
    remedy = "Start a head (ray start --head), forward its port 8265, or correct --ray-address (http://HOST:8265)."
    return _problem(f"no Jobs API answers at {address} ({cause})", remedy)


def _ray_version(address: str, token: str) -> str:
    """Ray's version on the head. Raises HTTPError or OSError, and other errors for an answer that is not Ray's."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(f"{address.rstrip('/')}/api/version", headers=headers)
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
        return str(json.loads(answer.read())["ray_version"])


def _token() -> str:
    """The token that Ray's clients send: the variable, else the file that the other names, else Ray's own file."""
    if token := os.environ.get("RAY_AUTH_TOKEN"):
        return token.strip()
    with suppress(OSError):
        return Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token").read_text().strip()
    return ""


def _compared(there: str, *, is_open: bool) -> Finding:
    here = version("ray")
    if there != here:
        remedy = "Install the same Ray on both sides, or submit from the cluster's image."
        return Finding("Ray", Level.WARNING, f"the head runs Ray {there}, this environment Ray {here}", remedy)
    if is_open:
        remedy = "Start it with RAY_AUTH_MODE=token and RAY_AUTH_TOKEN set: whoever reaches it can run code on it."
        return Finding("Ray", Level.WARNING, f"the head answers, Ray {there}, and asks for no token", remedy)
    return Finding("Ray", Level.OK, f"the head answers, Ray {there}, and takes the token")


def _problem(found: str, remedy: str) -> Finding:
    return Finding("Ray", Level.PROBLEM, found, remedy)
