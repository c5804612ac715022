"""Long calls over MCP: progress with lines and bytes, and cancellation, which ends the process and reaches no other
session's request; over HTTP with sessions, and on standard input and output.

usage: mcp_long_calls.py KRUXOS HOME URL TOKEN OTHER_TOKEN
"""

import json
import os
import queue
import subprocess
import sys
import threading
import urllib.request

kruxos, home, url, token, other_token = sys.argv[1:6]
LINE = "i=0; while true; do echo line $i; i=$((i+1)); sleep 0.2; done"
CALL = {"name": "process__run", "arguments": {"command": LINE, "shell": True, "timeout_seconds": 300}}


def message(method, params, id=None):
    body = {"jsonrpc": "2.0", "method": method, "params": params}
    return body if id is None else {**body, "id": id}


def post(body, token, session=None):
    headers = {
        "Authorization": f"Bearer {token}", "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2025-11-25",
    }
    if session:
        headers["Mcp-Session-Id"] = session
    request = urllib.request.Request(url + "/mcp", json.dumps(body).encode(), headers)
    return urllib.request.urlopen(request, timeout=60)


HELLO = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}


def begin(token):
    session = post(message("initialize", HELLO, 1), token).headers["Mcp-Session-Id"]
    post(message("notifications/initialized", {}), token, session).read()
    return session


def outcomes():
    rows = subprocess.run(
        [kruxos, "audit", "query", "--capability", "process.run", "--format", "jsonl", "--home", home],
        capture_output=True, text=True, check=True).stdout.splitlines()
    return [row for row in map(json.loads, rows) if row["phase"] == "outcome"]


def check(events, cancel, disturb):
    """`events` gives each message as it comes and None at the end."""
    disturb()
    seen = events.get(timeout=60)
    assert seen["method"] == "notifications/progress", seen
    params = seen["params"]
    assert params["progressToken"] == "mine" and params["progress"] >= 4, seen
    assert "lines" in params["message"] and "bytes" in params["message"], seen
    before = len(outcomes())
    cancel()
    while (seen := events.get(timeout=20)) is not None:
        # Nobody waits for an answer; if there is one, it does not say that all went well.
        assert "exit_code\": 0" not in json.dumps(seen), seen
        if "id" in seen:
            break
    rows = outcomes()
    while len(rows) == before:
        rows = outcomes()
    assert len(rows) == before + 1, rows
    assert rows[-1].get("result", {}).get("signal") == 9 or rows[-1]["outcome"] == "cancelled", rows[-1]


# Over HTTP: sessions of the same agent and of another.
mine, second, foreign = begin(token), begin(token), begin(other_token)
events = queue.Queue()


def read():
    with post(message("tools/call", {**CALL, "_meta": {"progressToken": "mine"}}, 7), token, mine) as reply:
        for line in reply:
            if line.startswith(b"data:") and line[5:].strip():
                events.put(json.loads(line[5:]))
    events.put(None)


def disturb():
    for session, bearer in [(second, token), (foreign, other_token)]:
        for id in [7, "7", 7.5, None, [7], {"a": 1}, -1, True]:
            try:
                post(message("notifications/cancelled", {"requestId": id}), bearer, session).read()
            except urllib.error.HTTPError as error:
                assert error.code in (400, 404), error.code
        # Nor a request of theirs by the same number.
        post(message("tools/list", {}, 7), bearer, session).read()
    for id in ["7", 8, None, [7]]:
        try:
            post(message("notifications/cancelled", {"requestId": id}), token, mine).read()
        except urllib.error.HTTPError as error:
            assert error.code == 400, error.code
    # A session of one's own that belongs to somebody else.
    try:
        post(message("notifications/cancelled", {"requestId": 7}), other_token, mine).read()
        raise AssertionError("another agent used the session")
    except urllib.error.HTTPError as error:
        assert error.code in (400, 401, 403, 404), error.code


threading.Thread(target=read, daemon=True).start()
check(events, lambda: post(message("notifications/cancelled", {"requestId": 7}), token, mine).read(), disturb)

# On standard input and output.
server = subprocess.Popen(
    [kruxos, "mcp", "--agent", "tester", "--home", home], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    env={**os.environ, "KRUXOS_TOKEN": token})
lines = queue.Queue()


def listen():
    for line in server.stdout:
        lines.put(json.loads(line))
    lines.put(None)


def say(body):
    server.stdin.write(json.dumps(body) + "\n")
    server.stdin.flush()


threading.Thread(target=listen, daemon=True).start()
say(message("initialize", HELLO, 1))
assert lines.get(timeout=30)["id"] == 1
say(message("notifications/initialized", {}))
say(message("tools/call", {**CALL, "_meta": {"progressToken": "mine"}}, "call"))


def disturb_lines():
    for id in ["cal", 7, None, [], 1]:
        say(message("notifications/cancelled", {"requestId": id}))
    say("no message")


# What is no message is answered as such.
def skipping_errors():
    class Skipping:
        def get(self, timeout):
            while (seen := lines.get(timeout=timeout)) is not None and seen.get("error", {}).get("code") in (-32600, -32700):
                pass
            return seen
    return Skipping()


check(
    skipping_errors(),
    lambda: (say(message("notifications/cancelled", {"requestId": "call"})), say(message("ping", {}, "after"))),
    disturb_lines)
server.stdin.close()
assert server.wait(timeout=30) == 0
print("long calls: progress, cancellation, and nobody else's")
