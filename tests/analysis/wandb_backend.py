"""A W&B server of a few lines on the loopback: enough GraphQL for the real client to read runs
through its public API and to save a report."""

from __future__ import annotations

import json
from typing import Any

from tests.wandb_loopback import Loopback

USER = {
    "id": "1", "entity": "us", "username": "us", "email": "us@here", "name": "us", "flags": "{}",
    "admin": False, "teams": {"edges": []},
}  # fmt: skip
END = {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False}
PROJECT = {
    "__typename": "Project", "id": "UHJvamVjdDox", "name": "study", "entityName": "us",
    "createdAt": "2026-01-01T00:00:00Z", "isBenchmark": False, "user": None,
}  # fmt: skip


class Backend(Loopback):
    """`runs`: (group, summary) by id, to be read. `views`: the reports that were saved."""

    def __init__(self) -> None:
        self.runs: dict[str, tuple[str, dict[str, Any]]] = {}
        self.views: list[dict[str, Any]] = []
        super().__init__()

    def graphql(self, query: str, given: dict[str, Any]) -> Any:
        if "upsertView" in query:
            self.views.append(given)
            named = {key: given.get(key) for key in ("type", "name", "displayName", "description")}
            where = {"name": given["projectName"], "entityName": given["entityName"]}
            spec = {"spec": given["spec"], "updatedAt": None, "createdAt": "2026-01-01T00:00:00"}
            view = {"id": "Vmlldzox", **named, "project": {"id": "UHJvamVjdDox", **where}, **spec}
            return {"upsertView": {"view": view, "inserted": True}}
        if "runs(" in query:
            return {"project": self._runs(json.loads(given.get("filters") or "{}"))}
        if "internalId" in query and "projectName" in given:
            return {"project": {"internalId": "UHJvamVjdEludGVybmFsSWQ6MQ=="}}
        if "GetProjects" in query or "models(" in query:
            return {"models": {"pageInfo": END, "edges": [{"node": PROJECT}]}}
        if "serverInfo" in query:
            versions = {"cliVersionInfo": {"max_cli_version": "99.0.0"}, "features": []}
            return {"serverInfo": {**versions, "latestLocalVersionInfo": None}, "viewer": USER}
        if "viewer" in query:
            return {"viewer": USER}
        self.unknown.append(" ".join(query.split())[:300])
        return None

    def _runs(self, filters: dict[str, Any]) -> dict[str, Any]:
        chosen = {
            name: summary
            for name, (group, summary) in self.runs.items()
            if filters.get("group") in (None, group)
        }
        edges = [
            {"cursor": name, "node": _node(name, self.runs[name][0], summary)}
            for name, summary in chosen.items()
        ]
        count = {"internalId": "1", "runCount": len(edges), "readOnly": False}
        return {**count, "runs": {"edges": edges, "pageInfo": END}}


def _node(name: str, group: str, summary: dict[str, Any]) -> dict[str, Any]:
    return {
        "projectId": "1", "id": name, "tags": [], "name": name, "displayName": name,
        "sweepName": None, "state": "finished", "config": "{}", "group": group, "jobType": None,
        "commit": None, "readOnly": False, "createdAt": "2026-01-01T00:00:00", "heartbeatAt": None,
        "description": "", "notes": "", "systemMetrics": "{}", "historyLineCount": 1,
        "summaryMetrics": json.dumps(summary), "user": {"name": "us", "username": "us"},
        "historyKeys": None,
    }  # fmt: skip
