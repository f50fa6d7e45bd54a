"""/composite and /composite/graph: several calls in one, later ones with what earlier ones answered.

https://developer.salesforce.com/docs/platform/api-rest/guide/resources-composite-composite-post.html
https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/resources_composite_graph_limits.htm
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from werkzeug.datastructures import Headers

from local.simulators.base import Refused, Response
from local.simulators.salesforce.conditions import refuse_conditions
from local.simulators.salesforce.errors import Refusal, refuse
from local.simulators.salesforce.protocol import Call, answer, check_headers, split

MOST_SUBREQUESTS, MOST_QUERIES = 25, 5
MOST_GRAPHS, MOST_NODES, MOST_KINDS, MOST_DEPTH, MOST_FAILURES = 75, 500, 15, 15, 14
SUBREQUEST_KEYS = {"method", "url", "referenceId", "httpHeaders", "body"}
FORBIDDEN_HEADERS = {"accept", "authorization", "content-type"}
REFERENCE = re.compile(r"@\{([^}]*)\}")

Route = Callable[[Call], Response]


@dataclass(frozen=True)
class Subrequest:
    method: str
    url: str
    reference_id: str
    headers: dict[str, str]
    body: Any

    @property
    def path(self) -> tuple[str, ...]:
        """The segments behind the version."""
        return split(self.url.partition("?")[0])[3:]

    @property
    def names(self) -> set[str]:
        """The subrequests this one refers to."""
        text = self.url + json.dumps(self.body)
        return {re.split(r"[.\[]", found)[0] for found in REFERENCE.findall(text)}


@dataclass
class Batch:
    """Subrequests carried out one after the other, and what they answered so far."""

    call: Call
    route: Route
    answers: dict[str, Any] = field(default_factory=dict)  # referenceId -> body, of those that succeeded

    def run(self, subrequests: list[Subrequest], *, all_or_none: bool) -> tuple[bool, list[dict[str, Any]]]:
        """Whether nothing failed, and the entries of compositeResponse. All or none undoes all when one fails."""
        org = self.call.org
        mark, entries, succeeded = org.mark(), [], True
        for subrequest in subrequests:
            response = self._carry_out(subrequest)
            entries.append(_entry(subrequest, response))
            if response.status >= 400 or response.status == 300:
                succeeded = False
                if all_or_none:
                    break
            else:
                self.answers[subrequest.reference_id] = entries[-1]["body"]
        if all_or_none and not succeeded:
            org.undo_to(mark)
            halted = refuse("Halted").response
            culprit = len(entries) - 1
            entries = [
                entries[index] if index == culprit else _entry(subrequest, halted)
                for index, subrequest in enumerate(subrequests)
            ]
        return succeeded, entries

    def _carry_out(self, subrequest: Subrequest) -> Response:
        try:
            url, body = self._resolve(subrequest.url), self._resolve(subrequest.body)
            path, _, query = url.partition("?")
            request = replace(
                self.call.request,
                method=subrequest.method,
                path=path,
                raw_path=path,
                query_string=query,
                headers=Headers(
                    subrequest.headers | ({"Content-Type": "application/json"} if body is not None else {})
                ),
                body=b"" if body is None else json.dumps(body).encode(),
            )
            with self.call.org.undoing():
                return self.route(replace(self.call, request=request, segments=split(path)[3:]))
        except Refused as refused:
            return refused.response

    def _resolve(self, value: Any) -> Any:
        """The value with its references replaced. Raises BadSubrequestReference."""
        if isinstance(value, dict):
            return {name: self._resolve(each) for name, each in value.items()}
        if isinstance(value, list):
            return [self._resolve(each) for each in value]
        if not isinstance(value, str):
            return value
        if whole := REFERENCE.fullmatch(value):
            return self._referenced(whole.group(1))
        return REFERENCE.sub(lambda found: str(self._referenced(found.group(1))), value)

    def _referenced(self, text: str) -> Any:
        name, *steps = re.findall(r"[^.\[\]]+", text) or [text]
        path = text[len(name) :].lstrip(".")
        missing = refuse("BadSubrequestReference", path=path or text, ref=name)
        if name not in self.answers:
            raise missing
        value = self.answers[name]
        for step in steps:
            try:
                value = value[int(step)] if isinstance(value, list) else value[step]
            except (KeyError, IndexError, ValueError, TypeError) as exc:
                raise missing from exc
        if value is None or isinstance(value, dict | list):
            raise missing
        return value


def composite_call(call: Call, route: Route) -> Response:
    """POST /composite"""
    refuse_conditions(call, "a composite")
    body = _body(call, {"allOrNone", "collateSubrequests", "compositeRequest"})
    for name in ("allOrNone", "collateSubrequests"):
        if not isinstance(body.get(name, False), bool):
            raise refuse("InvalidInput", message=f"{name} is true or false")
    subrequests = _subrequests(call, body.get("compositeRequest"))
    if len(subrequests) > MOST_SUBREQUESTS:
        raise refuse("LimitExceeded", message=f"Limit of {MOST_SUBREQUESTS} subrequests exceeded: {len(subrequests)}")
    queries = sum(each.path[0] in ("query", "queryAll", "composite") for each in subrequests)
    if queries > MOST_QUERIES:
        raise refuse("LimitExceeded", message=f"Limit of {MOST_QUERIES} query and collection subrequests exceeded")
    _, entries = Batch(call, route).run(subrequests, all_or_none=body.get("allOrNone", False))
    return answer(200, {"compositeResponse": entries})


def graph_call(call: Call, route: Route) -> Response:
    """POST /composite/graph: each graph by itself is all or nothing."""
    refuse_conditions(call, "a graph")
    graphs = _body(call, {"graphs"}).get("graphs")
    if not isinstance(graphs, list) or not graphs:
        raise refuse("InvalidInput", message="graphs is a list of at least one graph")
    if len(graphs) > MOST_GRAPHS:
        raise refuse("LimitExceeded", message=f"Limit of {MOST_GRAPHS} graphs exceeded")
    prepared = [(_graph_id(graph), _subrequests(call, graph.get("compositeRequest"))) for graph in graphs]
    if len({name for name, _ in prepared}) < len(prepared):
        raise refuse("InvalidInput", message="graphId is not unique")
    if sum(len(nodes) for _, nodes in prepared) > MOST_NODES:
        raise refuse("LimitExceeded", message=f"Limit of {MOST_NODES} nodes exceeded")
    for _, nodes in prepared:
        _check_graph(nodes)
    results, failures = [], 0
    for name, nodes in prepared:
        if failures >= MOST_FAILURES:
            response = refuse("TooManyGraphFailures").response
            succeeded, entries = False, [_entry(node, response) for node in nodes]
        else:
            succeeded, entries = Batch(call, route).run(nodes, all_or_none=True)
        failures += not succeeded
        response_json = {"compositeResponse": entries}
        results.append({"graphId": name, "graphResponse": response_json, "isSuccessful": succeeded})
    return answer(200, {"graphs": results})


def _body(call: Call, known: set[str]) -> dict[str, Any]:
    call.check_query()
    body = call.json_body()
    if unknown := body.keys() - known:
        raise _unreadable(f"Unrecognized field '{sorted(unknown)[0]}'")
    return body


def _subrequests(call: Call, given: Any) -> list[Subrequest]:
    """Raises when the request as a whole is malformed."""
    if not isinstance(given, list) or not given:
        raise refuse("InvalidInput", message="compositeRequest is a list of at least one subrequest")
    made = [_subrequest(call, each) for each in given]
    if len({each.reference_id for each in made}) < len(made):
        raise refuse("InvalidInput", message="referenceId is not unique")
    return made


def _subrequest(call: Call, given: Any) -> Subrequest:
    if not isinstance(given, dict) or given.keys() - SUBREQUEST_KEYS:
        raise _unreadable(f"A subrequest has {', '.join(sorted(SUBREQUEST_KEYS))} and nothing else")
    method, url, reference_id = (given.get(name) for name in ("method", "url", "referenceId"))
    headers, body = given.get("httpHeaders") or {}, given.get("body")
    if not isinstance(reference_id, str) or not re.fullmatch(r"[A-Za-z0-9_]+", reference_id):
        raise refuse(
            "InvalidInput",
            message=f"Provided referenceId ('{reference_id}') must consist of letters, digits and underscores.",
        )
    if method not in ("GET", "POST", "PUT", "PATCH", "DELETE"):
        raise refuse("InvalidInput", message=f"method of {reference_id} is not supported: {method}")
    if not isinstance(url, str) or not url.startswith(call.base + "/") or re.search(r"\s", url):
        raise refuse(
            "InvalidInput", message=f"The url of {reference_id} must be percent-encoded and begin with {call.base}/"
        )
    if not isinstance(headers, dict) or not all(isinstance(value, str) for value in headers.values()):
        raise refuse("InvalidInput", message=f"httpHeaders of {reference_id} are texts")
    forbidden = [name for name in headers if name.lower() in FORBIDDEN_HEADERS]
    if forbidden:
        raise refuse("InvalidInput", message=f"httpHeaders of {reference_id} must not have {forbidden[0]}")
    made = Subrequest(method, url, reference_id, headers, body)
    check_headers(replace(call.request, headers=Headers(headers)))
    if made.path[:1] not in (("sobjects",), ("query",), ("queryAll",)) and made.path[:2] != ("composite", "sobjects"):
        raise refuse("InvalidInput", message=f"The url of {reference_id} is not supported in a composite: {url}")
    return made


def _graph_id(graph: Any) -> str:
    if not isinstance(graph, dict) or graph.keys() - {"graphId", "compositeRequest"}:
        raise _unreadable("A graph has graphId and compositeRequest")
    name = graph.get("graphId")
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_]+", name):
        raise refuse("InvalidInput", message=f"Provided graphId ('{name}') is not valid.")
    return name


def _check_graph(nodes: list[Subrequest]) -> None:
    """Only creates and rows; limited kinds and depth."""
    kinds, depth = set(), dict[str, int]()
    for node in nodes:
        length, resource = len(node.path), node.path[2] if len(node.path) > 2 else ""
        known = node.path[0] == "sobjects" and 2 <= length <= 4 and resource not in ("describe", "updated", "deleted")
        if not known or (length == 2 and node.method != "POST"):
            raise refuse(
                "InvalidInput", message=f"The url of {node.reference_id} is not supported in a graph: {node.url}"
            )
        kinds.add(node.path[1])
        depth[node.reference_id] = 1 + max((depth.get(name, 0) for name in node.names), default=0)
    if len(kinds) > MOST_KINDS or max(depth.values()) > MOST_DEPTH:
        raise refuse("LimitExceeded", message=f"Limit of {MOST_KINDS} node types or depth {MOST_DEPTH} exceeded")


def _entry(subrequest: Subrequest, response: Response) -> dict[str, Any]:
    headers = {
        name: value for name, value in response.headers if name.lower() not in ("content-type", "content-length")
    }
    return {
        "body": json.loads(response.body) if response.body else None,
        "httpHeaders": headers,
        "httpStatusCode": response.status,
        "referenceId": subrequest.reference_id,
    }


def _unreadable(message: str) -> Refusal:
    return refuse("Unreadable", message=message)
