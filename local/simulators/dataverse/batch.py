"""Reads a `$batch` of several requests, and writes the answers. Executes nothing itself.

https://learn.microsoft.com/power-apps/developer/data-platform/webapi/execute-batch-operations-using-web-api
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from http import HTTPStatus
from urllib.parse import unquote, urlsplit

from werkzeug.datastructures import Headers

from local.simulators.base import Refused, Request, Response
from local.simulators.dataverse.errors import refuse
from local.simulators.dataverse.organization import Organization
from local.simulators.dataverse.protocol import Call, answer

MAX_OPERATIONS = 1000
BOUNDARY = re.compile(r'boundary="?([^";,\s]+)"?', re.IGNORECASE)
REFERENCE = re.compile(r"\$(\d+)")
Execute = Callable[[Request], Response]


@dataclass(frozen=True)
class Part:
    """One request of a batch; in a change set it carries the Content-ID that later parts may refer to."""

    request: Request
    content_id: str | None


def run_batch(org: Organization, call: Call, execute: Execute) -> Response:
    """Run the parts in order. Stops at the first failure unless odata.continue-on-error is preferred."""
    parts = read_parts(call.request)
    total = sum(len(part) if isinstance(part, list) else 1 for part in parts)
    if total > MAX_OPERATIONS:
        words = f"The batch holds {total} operations; at most {MAX_OPERATIONS} are allowed."
        raise refuse("InvalidArgument", message=words)
    boundary = f"batchresponse_{uuid.uuid4()}"
    written: list[bytes] = []
    addresses: dict[str, str] = {}
    status = 200
    for part in parts:
        if isinstance(part, list):
            failed, shown = _run_change_set(org, part, execute, addresses)
        else:
            response = execute(_resolved(part.request, addresses))
            failed, shown = (response if response.status >= 400 else None), [_http_part(response, part.content_id)]
            _remember(part, response, addresses)
        written += [f"--{boundary}\r\n".encode(), *shown]
        if failed is not None and "odata.continue-on-error" not in call.prefer:
            status = failed.status
            break
    reply = answer(call, status)
    reply.headers["Content-Type"] = f"multipart/mixed; boundary={boundary}"
    reply.body = b"".join([*written, f"--{boundary}--\r\n".encode()])
    return reply


def _run_change_set(
    org: Organization, parts: list[Part], execute: Execute, addresses: dict[str, str]
) -> tuple[Response | None, list[bytes]]:
    """All parts, or none: then the one failure answers for the set."""
    boundary = f"changesetresponse_{uuid.uuid4()}"
    inner: list[bytes] = []
    try:
        with org.transaction():
            for part in parts:
                response = execute(_resolved(part.request, addresses))
                _undo_if_failed(response)
                _remember(part, response, addresses)
                inner += [f"--{boundary}\r\n".encode(), _http_part(response, part.content_id)]
    except Refused as refused:
        return refused.response, [_http_part(refused.response, None)]
    head = f"Content-Type: multipart/mixed; boundary={boundary}\r\n\r\n".encode()
    return None, [head, *inner, f"--{boundary}--\r\n".encode()]


def _undo_if_failed(response: Response) -> None:
    if response.status >= 400:
        raise Refused(response)


def _remember(part: Part, response: Response, addresses: dict[str, str]) -> None:
    address = response.headers.get("OData-EntityId")
    if part.content_id and address:
        addresses[part.content_id] = address


def _resolved(request: Request, addresses: dict[str, str]) -> Request:
    """The request with `$1` in its address and in its bindings replaced by the row that part 1 made."""

    def address(match: re.Match[str]) -> str:
        if match[1] not in addresses:
            words = f"Content-ID Reference: '{match[0]}' does not exist in the batch context."
            raise refuse("InvalidArgument", message=words)
        return addresses[match[1]]

    path = request.path
    if path.startswith("/$") and (match := REFERENCE.match(path, 1)):
        path = urlsplit(address(match)).path + path[match.end() :]
    body = re.sub(
        rb'("[^"]+@odata\.bind"\s*:\s*")(\$\d+)(")',
        lambda m: m[1] + REFERENCE.sub(address, m[2].decode()).encode() + m[3],
        request.body,
    )
    return replace(request, path=unquote(path), body=body)


# Reading and writing multipart


def read_parts(request: Request) -> list[Part | list[Part]]:
    match = BOUNDARY.search(request.headers.get("Content-Type", ""))
    if match is None:
        raise refuse("UnreadableBatch")
    return [_read_part(request, headers, content) for headers, content in _split(request.body, match[1])]


def _read_part(outer: Request, headers: Headers, content: bytes) -> Part | list[Part]:
    kind = headers.get("Content-Type", "")
    if kind.startswith("multipart/mixed"):
        match = BOUNDARY.search(kind)
        if match is None:
            raise refuse("UnreadableBatch")
        parts = [_read_request(outer, inner, body) for inner, body in _split(content, match[1])]
        if any(part.content_id is None for part in parts):
            raise refuse("InvalidArgument", message="Each request of a change set needs a Content-ID.")
        if any(part.request.method == "GET" for part in parts):
            raise refuse("InvalidArgument", message="A change set cannot contain GET requests.")
        return parts
    if not kind.startswith("application/http"):
        raise refuse("UnreadableBatch")
    return _read_request(outer, headers, content)


def _read_request(outer: Request, part_headers: Headers, content: bytes) -> Part:
    head, separator, body = content.partition(b"\r\n\r\n")
    line, *lines = head.decode().split("\r\n")
    words = re.fullmatch(r"([A-Z]+) (.+) HTTP/1\.1", line)
    if not separator or words is None:  # a GET needs its blank lines too
        raise refuse("UnreadableBatch")
    method, target = words.groups()
    split = urlsplit(target if target.startswith(("http", "/")) else f"/{target}")
    headers = Headers([(name.strip(), value.strip()) for name, _, value in (h.partition(":") for h in lines if h)])
    path = unquote(split.path)
    if not path.startswith(("/api/", "/$")):  # a path relative to the service root
        path = outer.path.removesuffix("$batch") + path.lstrip("/")
    request = replace(
        outer,
        method=method,
        path=path,
        raw_path=split.path,
        query_string=split.query.replace(" ", "%20"),
        headers=headers,
        body=body.rstrip(b"\r\n"),
    )
    if request.path.endswith("/$batch"):
        raise refuse("InvalidArgument", message="A batch cannot contain another batch.")
    return Part(request, part_headers.get("Content-ID") or headers.get("Content-ID"))


def _split(body: bytes, boundary: str) -> list[tuple[Headers, bytes]]:
    """Headers and content of each part. Every line must end in CRLF, the last one too."""
    marker = f"--{boundary}".encode()
    if re.search(rb"(?<!\r)\n", body) or marker + b"--\r\n" not in body:
        raise refuse("UnreadableBatch")
    inner = body[: body.index(marker + b"--\r\n")]
    parts = []
    for chunk in inner.split(marker + b"\r\n")[1:]:
        head, separator, content = chunk.partition(b"\r\n\r\n")
        if not separator:
            raise refuse("UnreadableBatch")
        lines = (line.partition(":") for line in head.decode().split("\r\n"))
        parts.append((Headers([(name.strip(), value.strip()) for name, _, value in lines]), content))
    return parts


def _http_part(response: Response, content_id: str | None) -> bytes:
    lines = ["Content-Type: application/http", "Content-Transfer-Encoding: binary"]
    lines += [f"Content-ID: {content_id}"] if content_id else []
    lines += ["", f"HTTP/1.1 {response.status} {HTTPStatus(response.status).phrase}"]
    lines += [f"{name}: {value}" for name, value in response.headers]
    return "\r\n".join([*lines, "", ""]).encode() + response.body + b"\r\n"
