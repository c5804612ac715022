"""The tasks extension with the official MCP client: a call that a person must approve becomes a task, is polled while the
gateway is restarted, and ends with the result; a task can be cancelled; the tools to list and withdraw requests do the
same for clients without the extension, and `/rpc` for those without MCP.

usage: mcp_tasks.py KRUXOS HOME URL TOKEN
"""

import asyncio
import json
import subprocess
import sys
import urllib.request
from typing import Any, Literal

from mcp import Client, MCPError
from mcp.client.extension import ClientExtension, ResultClaim
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client
from mcp_types import CallToolResult, Request, RequestParams, Result

kruxos, home, url, token = sys.argv[1:5]
DELETE = {"path": "notes.txt"}


def command(*arguments):
    return subprocess.run([kruxos, *arguments, "--home", home], capture_output=True, text=True, check=True).stdout


class TaskParams(RequestParams):
    task_id: str


class TaskRequest(Request[TaskParams, str]):
    name_param = "taskId"


class Task(Result):
    task_id: str
    status: str
    status_message: str | None = None
    ttl_ms: int | None = None
    poll_interval_ms: int
    result: dict[str, Any] | None = None


class CreatedTask(Task):
    result_type: Literal["task"] = "task"


def request(method, task):
    return TaskRequest(method=method, params=TaskParams(task_id=task))


class Tasks(ClientExtension):
    """Approves or cancels each task on the way, then polls it to its end."""

    identifier = "io.modelcontextprotocol/tasks"

    def __init__(self, then):
        self.then = then
        self.seen = []

    def claims(self):
        return [ResultClaim(result_type="task", model=CreatedTask, resolve=self.resolve)]

    async def resolve(self, created, context):
        session = context.session
        assert created.status == "working" and created.poll_interval_ms >= 1000 and created.ttl_ms is None, created
        task = await session.send_request(request("tasks/get", created.task_id), Task)
        assert task.status == "working" and "Waits for a person" in task.status_message, task
        await self.then(session, created.task_id)
        while task.status == "working":
            task = await session.send_request(request("tasks/get", created.task_id), Task)
        self.seen.append((created.task_id, task.status))
        again = await session.send_request(request("tasks/get", created.task_id), Task)
        assert again == task, (again, task)
        if task.status == "cancelled":
            return CallToolResult(content=[], is_error=True)
        return CallToolResult.model_validate(task.result)


async def approve(_, task):
    await asyncio.to_thread(command, "approve", "accept", task)


async def reject(_, task):
    await asyncio.to_thread(command, "approve", "reject", task, "--reason", "not today")


async def cancel(session, task):
    await session.send_request(request("tasks/cancel", task), Result)


def rpc(method, params):
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
    call = urllib.request.Request(
        url + "/rpc", body, {"Authorization": f"Bearer {token}", "Content-Type": "application/json"})
    return json.load(urllib.request.urlopen(call, timeout=30))


async def main():
    async with create_mcp_http_client(headers={"Authorization": f"Bearer {token}"}) as http:

        def client(*extensions):
            transport = streamable_http_client(url + "/mcp", http_client=http)
            return Client(transport, mode="2026-07-28", extensions=extensions)

        for then, status in ((approve, "completed"), (reject, "completed"), (cancel, "cancelled")):
            tasks = Tasks(then)
            async with client(tasks) as mcp:
                await mcp.call_tool("filesystem__write", {"path": "notes.txt", "content": "x"})
                result = await mcp.call_tool("filesystem__delete", DELETE)
                assert tasks.seen[0][1] == status, tasks.seen
                left = (await mcp.call_tool("filesystem__stat", DELETE)).structured_content["exists"]
                if then is approve:
                    assert not result.is_error and "trash_id" in result.structured_content and not left, result
                else:
                    assert result.is_error and left, result
                if then is reject:
                    error = result.meta["org.kruxos/error"]
                    assert error["error_type"] == "ApprovalRejected" and "not today" in json.dumps(error), error
                # What needs nobody is answered at once.
                assert not (await mcp.call_tool("system__time", {})).is_error
                for unknown in ("ap_999", "../x", ""):
                    try:
                        await mcp.session.send_request(request("tasks/get", unknown), Task)
                        raise AssertionError("an unknown task was found")
                    except MCPError as error:
                        assert error.code == -32602, error

        # Without the extension there is no task, and its methods say what is missing.
        async with client() as mcp:
            asked = await mcp.call_tool("filesystem__delete", DELETE)
            first = asked.meta["org.kruxos/error"]["context"]["request_id"]
            try:
                await mcp.session.send_request(request("tasks/get", first), Task)
                raise AssertionError("a task without the extension")
            except MCPError as error:
                assert error.code == -32021 and "extensions" in json.dumps(error.error.data), error.error
            listed = (await mcp.call_tool("kruxos__list_approvals", {})).structured_content["approvals"]
            assert [one["request_id"] for one in listed] == [first] and listed[0]["state"] == "pending", listed
            every = (await mcp.call_tool("kruxos__list_approvals", {"all": True})).structured_content["approvals"]
            assert [one["state"] for one in every] == ["pending", "cancelled", "rejected", "succeeded"], every
            assert rpc("kruxos.approvals", {})["result"]["approvals"] == listed
            withdrawn = await mcp.call_tool("kruxos__cancel_approval", {"request_id": first})
            assert withdrawn.structured_content["state"] == "cancelled", withdrawn
            again = await mcp.call_tool("kruxos__cancel_approval", {"request_id": first})
            assert again.is_error and again.meta["org.kruxos/error"]["error_type"] == "Conflict", again
            for wrong in ({"request_id": "ap_999"}, {"request_id": ""}, {}, {"request_id": first, "x": 1}):
                assert (await mcp.call_tool("kruxos__cancel_approval", wrong)).is_error, wrong
            assert rpc("kruxos.approvals", {})["result"]["approvals"] == []
            assert "error" in rpc("kruxos.approvals", {"limit": 0}) and "error" in rpc("kruxos.approvals", {"alll": True})
    assert "rows verified" in command("audit", "verify")
    print("tasks done")


asyncio.run(main())
