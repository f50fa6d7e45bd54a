"""A session for calls to addresses that are not in the settings of a client: nothing from the environment but trust."""

from __future__ import annotations

import os

import requests


def direct_session() -> requests.Session:
    session = requests.Session()
    # No proxy and no .netrc from the environment; the CA bundle is the one thing wanted from there.
    session.trust_env = False
    session.verify = os.environ.get("REQUESTS_CA_BUNDLE") or True
    return session
