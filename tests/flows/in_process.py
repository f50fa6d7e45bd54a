"""The way to simulated systems without sockets, and without what only matters on the way to real ones."""

from __future__ import annotations

from typing import Any, ClassVar

import requests


class InProcessSession(requests.Session):
    """Sends what it is given as it is. Merging it with a session's settings takes as long as the simulators' answer."""

    prepared: ClassVar[type[requests.PreparedRequest]] = requests.PreparedRequest

    def __init__(self) -> None:
        super().__init__()
        self.trust_env = False  # nothing leaves the process: looking for proxies at every call is for nothing

    def prepare_request(self, request: requests.Request) -> requests.PreparedRequest:
        """Nothing but headers is added: this session has no credentials, parameters or hooks, and no cookies come."""
        prepared = self.prepared()
        prepared.prepare(
            method=request.method,
            url=request.url,
            headers={**self.headers, **request.headers},
            files=request.files,
            data=request.data,
            json=request.json,
            params=request.params or "",  # which requests sees at once to be nothing
            auth=request.auth,
            cookies=request.cookies,
            hooks=request.hooks,
        )
        return prepared

    def merge_environment_settings(self, _url: Any, _proxies: Any, stream: bool | None, *_: Any) -> dict[str, Any]:
        return {"proxies": {}, "stream": bool(stream), "verify": True, "cert": None}
