"""A W&B server of a few lines on the loopback: enough of GraphQL and of the file stream that the
real client logs runs to it."""

from __future__ import annotations

import json
from typing import Any

from tests.wandb_loopback import Loopback

USER = {
    "id": "1", "entity": "us", "username": "us", "email": "us@here", "name": "us", "flags": "{}",
    "admin": False, "teams": {"edges": []},
}  # fmt: skip


class Backend(Loopback):
    """Runs as they arrive: `runs` by id, `history` and `summary` of each."""

    def __init__(self) -> None:
        self.runs: dict[str, dict[str, Any]] = {}
        self.history: dict[str, list[dict[str, Any]]] = {}
        self.summary: dict[str, dict[str, Any]] = {}
        self.files: dict[str, bytes] = {}
        super().__init__()

    def handle(self, path: str, body: bytes) -> Any:
        if path.endswith("/file_stream"):
            self._stream(path.split("/")[-2], json.loads(body))
        elif path.startswith("/upload/"):
            self.files[path.removeprefix("/upload/")] = body
        return super().handle(path, body)

    def graphql(self, query: str, given: dict[str, Any]) -> Any:
        if "upsertBucket" in query:
            return {"upsertBucket": {"bucket": self._upsert(given), "inserted": True}}
        if "createRunFiles" in query:
            files = [
                {"name": name, "uploadUrl": f"{self.url}/upload/{given['run']}/{name}"}
                for name in given["files"]
            ]
            return {"createRunFiles": {"runID": "r", "uploadHeaders": [], "files": files}}
        if "serverInfo" in query:
            versions = {"cliVersionInfo": {"max_cli_version": "99.0.0"}, "features": []}
            return {"serverInfo": {**versions, "latestLocalVersionInfo": None}, "viewer": USER}
        if "viewer" in query:
            return {"viewer": USER}
        if "coreWeaveOrganizationId" in query:
            return {"entity": {"organization": {"coreWeaveOrganizationId": None}}}
        if "model(" in query and "bucket(" in query:  # is there such a run to resume?
            return {"model": {"bucket": self._resumable(given.get("name", ""))}}
        self.unknown.append(" ".join(query.split())[:200])
        return None

    def _upsert(self, given: dict[str, Any]) -> dict[str, Any]:
        name = given.get("name") or given.get("id") or "?"
        run = self.runs.setdefault(name, {})
        run.update({key: value for key, value in given.items() if value is not None})
        project = {"id": "p", "name": run.get("project"), "entity": {"id": "e", "name": "us"}}
        return {
            "id": f"id-{name}", "name": name, "displayName": name, "description": "",
            "config": run.get("config"), "sweepName": None, "project": project,
            "historyLineCount": len(self.history.get(name, [])),
        }  # fmt: skip

    def _resumable(self, name: str) -> dict[str, Any] | None:
        if name not in self.runs:
            return None
        lines = self.history.get(name, [])
        tail = json.dumps([json.dumps(line) for line in lines[-1:]])
        return {
            "name": name, "historyLineCount": len(lines), "eventsLineCount": 0, "logLineCount": 0,
            "historyTail": tail, "eventsTail": "[]", "tags": [], "wandbConfig": '{"t": 1}',
            "summaryMetrics": json.dumps(self.summary.get(name, {})),
            "config": self.runs[name].get("config") or "{}",
        }  # fmt: skip

    def _stream(self, name: str, sent: dict[str, Any]) -> None:
        for file, part in (sent.get("files") or {}).items():
            if file == "wandb-history.jsonl":
                lines = self.history.setdefault(name, [])
                lines[part["offset"] :] = [json.loads(line) for line in part["content"]]
            if file == "wandb-summary.json":
                self.summary[name] = json.loads(part["content"][-1])
