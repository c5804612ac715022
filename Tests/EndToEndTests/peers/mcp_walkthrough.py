"""The official MCP client works through the gate: list, read, write, a refused escape, a hidden tool, an approval given
by a second process with the command line, its result, and the record verified.

usage: mcp_walkthrough.py TRANSPORT MODE KRUXOS HOME URL TOKEN AGENT
TRANSPORT is http or stdio, MODE is what mcp.Client takes: 2026-07-28, legacy or auto.
"""

import asyncio
import json
import subprocess
import sys

from mcp import Client, MCPError, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client

transport, mode, kruxos, home, url, token, agent = sys.argv[1:8]


def command(*arguments, code=0):
    result = subprocess.run([kruxos, *arguments, "--home", home], capture_output=True, text=True)
    assert result.returncode == code, (arguments, result.returncode, result.stdout, result.stderr)
    return result.stdout


def error_of(result):
    assert result.is_error, result
    return result.meta["org.kruxos/error"]


async def walk(client):
    expected = {"2026-07-28": "2026-07-28", "legacy": "2025-11-25", "auto": "2026-07-28"}[mode]
    assert client.protocol_version == expected, client.protocol_version
    tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    assert "filesystem__read" in tools and "kruxos__wait_for_approval" in tools, tools.keys()
    # Blocked by the system layer, and blocked for this agent.
    for absent in ["secrets__read_raw", "filesystem__append"]:
        assert absent not in tools, absent
    assert tools["filesystem__read"].annotations.read_only_hint is True

    name = f"{transport}-{mode}.txt"
    written = await client.call_tool("filesystem__write", {"path": name, "content": "written through MCP\n"})
    assert not written.is_error, written
    assert written.structured_content["path"] == f"/workspace/{agent}/{name}", written
    read = await client.call_tool("filesystem__read", {"path": name, "checksum": True})
    assert read.structured_content["content"] == "written through MCP\n"
    assert json.loads(read.content[0].text) == read.structured_content
    assert read.structured_content["sha256"] == written.structured_content["sha256"]

    escape = error_of(await client.call_tool("filesystem__read", {"path": "../../../../etc/passwd"}))
    assert escape["error_type"] == "OutsideWorkspace" and escape["recovery_actions"], escape
    invalid = error_of(await client.call_tool("filesystem__read", {"pathh": name}))
    assert invalid["error_type"] == "InvalidArguments" and "did you mean `path`" in invalid["description"], invalid
    blocked = error_of(await client.call_tool("filesystem__append", {"path": name, "content": "x"}))
    assert blocked["error_type"] == "PermissionDenied", blocked
    try:
        await client.call_tool("no_such__tool", {})
        raise AssertionError("an unknown tool was called")
    except MCPError as error:
        assert error.code == -32602, error

    asked = error_of(await client.call_tool("filesystem__delete", {"path": name}))
    assert asked["error_type"] == "ApprovalPending", asked
    request = asked["context"]["request_id"]
    still = await client.call_tool("kruxos__wait_for_approval", {"request_id": request, "timeout_seconds": 0})
    assert still.structured_content["state"] == "pending", still
    assert request in command("approve", "list")
    wait = asyncio.create_task(client.call_tool("kruxos__wait_for_approval", {"request_id": request, "timeout_seconds": 60}))
    await asyncio.to_thread(command, "approve", "accept", request, "--reason", "the walkthrough said so")
    result = await wait
    assert result.structured_content["state"] == "succeeded", result
    trash = result.structured_content["data"]["trash_id"]
    again = await client.call_tool("kruxos__wait_for_approval", {"request_id": request})
    assert again.structured_content == result.structured_content
    gone = await client.call_tool("filesystem__stat", {"path": name})
    assert gone.structured_content["exists"] is False
    back = await client.call_tool("filesystem__restore", {"trash_id": trash})
    assert back.structured_content["path"].endswith(name), back

    ran = await client.call_tool("process__run", {"command": "sh", "args": ["-c", f"cat {name}; echo oops >&2; exit 3"]})
    assert ran.structured_content["exit_code"] == 3, ran
    assert ran.structured_content["stdout"] == "written through MCP\n" and ran.structured_content["stderr"] == "oops\n"
    who = await client.call_tool("agent__whoami", {})
    assert who.structured_content["name"] == agent

    rows = json.loads(command("audit", "query", "--agent", agent, "--json"))
    assert any(r.get("request") == request and r["outcome"] == "approved" for r in rows if "outcome" in r), rows
    assert any(r.get("outcome") == "denied" and r["capability"] == "filesystem.append" for r in rows)
    assert "rows verified" in command("audit", "verify")


async def main():
    if transport == "stdio":
        server = StdioServerParameters(command=kruxos, args=["mcp", "--agent", agent, "--home", home])
        async with Client(stdio_client(server), mode=mode) as client:
            await walk(client)
    else:
        async with create_mcp_http_client(headers={"Authorization": f"Bearer {token}"}) as http:
            async with Client(streamable_http_client(url + "/mcp", http_client=http), mode=mode) as client:
                await walk(client)
    print("walked", transport, mode)


asyncio.run(main())
