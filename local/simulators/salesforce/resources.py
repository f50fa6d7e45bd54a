"""Which part of the REST API answers a call. Translates addresses; decides nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from local.simulators.base import Response
from local.simulators.salesforce.collection import collection_call
from local.simulators.salesforce.composite import composite_call, graph_call
from local.simulators.salesforce.conditions import refuse_conditions
from local.simulators.salesforce.describe import describe, list_objects, object_info
from local.simulators.salesforce.errors import refuse
from local.simulators.salesforce.protocol import Call, answer, wrong_method
from local.simulators.salesforce.query import Cursors
from local.simulators.salesforce.records import create_call, key_call, row_call
from local.simulators.salesforce.replication import deleted, updated
from local.simulators.salesforce.tooling import tooling_call

RESOURCES = ("sobjects", "query", "queryAll", "composite", "limits", "tooling")
NOT_SIMULATED = frozenset(
    {"search", "parameterizedSearch", "recent", "actions", "jobs", "analytics", "chatter", "connect", "process",
     "quickActions", "theme", "ui-api", "wave", "metadata", "async-queries", "tabs", "support", "serviceTemplates",
     "event", "consent", "knowledgeManagement", "licensing", "appMenu", "compactLayouts", "graphql", "jsonxform"}
)  # fmt: skip
OBJECT_RESOURCES_NOT_SIMULATED = frozenset(
    {"listviews", "quickActions", "defaultValues", "approvalLayouts", "compactLayouts", "richTextImageFields",
     "relevantItems", "eventSchema"}
)  # fmt: skip


@dataclass
class Resources:
    """The REST resources of one org."""

    cursors: Cursors

    def route(self, call: Call) -> Response:
        match call.segments:
            case ():
                only_get(call)
                return answer(200, {name: f"{call.base}/{name}" for name in RESOURCES})
            case ("limits",):
                only_get(call)
                return answer(200, self._limits(call))
            case ("query" | "queryAll" as resource,):
                refuse_conditions(call, "a query")
                return self.cursors.query(call, include_deleted=resource == "queryAll")
            case ("query" | "queryAll", locator):
                return self.cursors.page(call, locator)
            case ("sobjects", *rest):
                return self._sobjects(call, tuple(rest))
            case ("composite", "sobjects", *rest):
                return collection_call(call, tuple(rest))
            case ("composite",) | ("composite", "graph"):
                if call.method != "POST":
                    raise wrong_method(call, "POST")
                return (graph_call if len(call.segments) > 1 else composite_call)(call, self.route)
            case ("composite", "batch" | "tree", *_):
                raise refuse("NotSimulated", what="/".join(call.segments))
            case ("tooling", *rest):
                return tooling_call(call, self.cursors, tuple(rest))
            case (head, *_) if head in NOT_SIMULATED:
                raise refuse("NotSimulated", what=f"the resource {head}")
        raise refuse("NotFound")

    def _sobjects(self, call: Call, rest: tuple[str, ...]) -> Response:
        if not rest:
            only_get(call)
            return list_objects(call)
        sobject = call.org.access.object_named(rest[0], call.user)
        if sobject is None:
            raise refuse("NotFound")
        match rest[1:]:
            case ():
                if call.method == "POST":
                    return create_call(call, sobject)
                if call.method == "GET":
                    return object_info(call, sobject)
                raise wrong_method(call, "GET", "POST", "HEAD")
            case ("describe",):
                only_get(call)
                return describe(call, sobject)
            case ("updated",):
                return updated(call, sobject)
            case ("deleted",):
                return deleted(call, sobject)
            case (name, *_) if name in OBJECT_RESOURCES_NOT_SIMULATED:
                raise refuse("NotSimulated", what=f"the resource {name} of an object")
            case ("describe", *more):
                raise refuse("NotSimulated", what=f"describe/{'/'.join(more)}")
            case ("Id",) if call.method == "POST":
                return create_call(call, sobject)
            case (row_id,):
                return row_call(call, sobject, row_id)
            case (row_id, relation) if len(row_id) in (15, 18) and row_id.startswith(sobject.prefix):
                raise refuse("NotSimulated", what=f"the relationship {relation} of a row")
            case (field_name, value):
                return key_call(call, sobject, field_name, value)
        raise refuse("NotFound")

    def _limits(self, call: Call) -> dict[str, Any]:
        org = call.org
        return {"DailyApiRequests": {"Max": org.api_max, "Remaining": max(org.api_max - org.api_used, 0)}}


def only_get(call: Call) -> None:
    if call.method != "GET":
        raise wrong_method(call, "GET", "HEAD")
