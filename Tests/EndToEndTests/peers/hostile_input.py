"""Every route gets every field wrong; the answer is a structured error with a client's status, and the server lives.

usage: hostile_input.py URL TOKEN
"""

import http.client
import json
import socket
import sys
from urllib.parse import urlparse

url, token = urlparse(sys.argv[1]), sys.argv[2]
auth = {"Authorization": f"Bearer {token}", "Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
count = 0


def send(method, path, body=None, headers=auth):
    global count
    count += 1
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=30)
    if isinstance(body, (dict, list, str, int, float, bool)) or body is None and method == "POST":
        body = json.dumps(body)
    connection.request(method, path, body, headers)
    response = connection.getresponse()
    data = response.read()
    connection.close()
    return response.status, data


def refused(method, path, body=None, headers=auth, statuses=range(400, 500)):
    status, data = send(method, path, body, headers)
    assert status in statuses, (method, path, str(body)[:80], status, data[:200])
    reply = json.loads(data)
    error = reply["error"]
    assert error.get("error_type") or error.get("code"), reply
    if "error_type" in error:
        assert error["description"] and isinstance(error["recovery_actions"], list), reply


wrong = [None, True, 0, -1, 1.5, 2**53, 1e300, "", "x" * 100000, [], {}, [[]], {"a": {}}, "\x00", "\ud83d\ude00"]
valid = {
    "filesystem.read": {"path": "a", "offset": 0, "limit": 1, "encoding": "utf8", "checksum": False},
    "filesystem.write": {"path": "a", "content": "x", "encoding": "utf8", "overwrite": True, "create_parents": False, "durable": False},
    "filesystem.list": {"path": ".", "depth": 1, "limit": 1, "after": "a"},
    "filesystem.search": {"pattern": "*", "path": ".", "type": "any", "limit": 1},
    "filesystem.copy": {"source": "a", "destination": "b", "overwrite": False, "recursive": False},
    "filesystem.restore": {"trash_id": "tr_0", "path": "b"},
    "process.run": {"command": "true", "args": [], "cwd": ".", "timeout_seconds": 1, "max_output_bytes": 1, "env": {}},
    "agent.capabilities": {"category": "filesystem"},
}
for capability, arguments in valid.items():
    for field in arguments:
        for value in wrong:
            status, data = send("POST", "/v1/call", {"capability": capability, "arguments": {**arguments, field: value}})
            reply = json.loads(data)
            assert status in (200, 202) or 400 <= status < 500 or status == 507, (capability, field, value, status, data[:200])
            assert reply["status"] in ("succeeded", "failed", "pending"), reply
    refused("POST", "/v1/call", {"capability": capability, "arguments": {**arguments, "unknown": 1}})

for value in wrong:
    if value is not None and value != {}:
        refused("POST", "/v1/call", {"capability": "filesystem.list", "arguments": value})
        refused("POST", "/v1/call", value)
    refused("POST", "/v1/call", {"capability": value})
    if value not in (None, 0):
        refused("POST", "/v1/call", {"capability": "system.time", "wait": value})
    for method in ["kruxos.call", "kruxos.approval", "filesystem.read"]:
        status, data = send("POST", "/rpc", {"jsonrpc": "2.0", "id": 1, "method": method, "params": value})
        assert status in (200, 400) and "error" in json.loads(data), (method, value, status, data[:200])
    status, data = send("POST", "/rpc", {"jsonrpc": "2.0", "id": 1, "method": "kruxos.call", "params": {"capability": "filesystem.list", "arguments": value}})
    assert ("error" in json.loads(data)) == (value not in (None, {})), (value, data[:200])
    for field in ["jsonrpc", "id", "method"]:
        message = {"jsonrpc": "2.0", "id": 1, "method": "ping", "params": {}, field: value}
        for path in ["/rpc", "/mcp"]:
            status, data = send("POST", path, message)
            assert status < 500, (path, message, status)

raw = [
    b"", b"{", b"\xff\xfe", b'{"capability":"system.time","capability":"system.time"}', b"[" * 100000, b'{"a":' * 5000,
    b'{"capability":"\\ud800"}', b'"', b"nul", b'{"capability":"filesystem.read","arguments":{"path":"a\\u0000b"}}',
    b'{"capability":"system.time"} x', b'\xef\xbb\xbf{"capability":"system.time"}',
    # Descending keys, once quadratic.
    json.dumps({"capability": "system.time", "arguments": {f"{n:07}": 1 for n in range(100000, 0, -1)}}).encode(),
]
for body in raw:
    refused("POST", "/v1/call", body)
    for path in ["/rpc", "/mcp"]:
        status, data = send("POST", path, body)
        assert status < 500 and "error" in json.loads(data), (path, body[:40], status)
refused("POST", "/rpc", [])
refused("POST", "/rpc", [1] * 101)

refused("GET", "/v1/call"), refused("PUT", "/rpc"), refused("POST", "/v1/capabilities", {}), refused("GET", "/nothing")
refused("GET", "/v1/approvals/ap_999"), refused("GET", "/v1/approvals/ap_001?wait=x"), refused("GET", "/v1/approvals/" + "x" * 5000)
refused("PATCH", "/v1/approvals/ap_001", {}), refused("DELETE", "/v1/approvals/ap_999")
for path in ["/v1/call", "/v1/capabilities", "/rpc", "/mcp", "/v1/approvals/ap_001", "/"]:
    for headers in [{}, {"Authorization": "Bearer " + "0" * 64}, {"Authorization": "Basic x"}, {"Authorization": "Bearer"}]:
        refused("POST", path, {}, headers, statuses=[401])
for name, value in [("Origin", "http://evil.example"), ("Origin", "null"), ("Origin", "http://[::1]evil"), ("Origin", "http://localhost:x@evil"), ("Host", "evil.example"), ("Host", "[::1].evil")]:
    refused("POST", "/v1/call", {"capability": "system.time"}, {**auth, name: value}, statuses=[403])
assert send("POST", "/v1/call", {"capability": "system.time"}, {**auth, "Origin": "http://localhost:3000"})[0] == 200
refused("POST", "/mcp", {"jsonrpc": "2.0", "id": 1, "method": "ping"}, {**auth, "Accept": "text/html"}, statuses=[406])
refused("POST", "/mcp", {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}, {**auth, "MCP-Protocol-Version": "2030-01-01"})
meta = {"_meta": {"io.modelcontextprotocol/protocolVersion": "2030-01-01", "io.modelcontextprotocol/clientCapabilities": {}}}
status, data = send("POST", "/mcp", {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": meta}, {**auth, "MCP-Protocol-Version": "2030-01-01", "Mcp-Method": "tools/list"})
assert status == 400 and json.loads(data)["error"]["code"] == -32022, data

# A body over the limit is refused by its length; a header over the limit ends the connection.
connection = socket.create_connection((url.hostname, url.port))
connection.sendall(f"POST /v1/call HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nContent-Length: 99999999\r\n\r\n".encode())
assert b"413" in connection.recv(200)
connection.close()
connection = socket.create_connection((url.hostname, url.port))
connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 100000 + b"\r\n\r\n")
assert b"400" in connection.recv(200)
connection.close()

assert send("POST", "/v1/call", {"capability": "system.time"})[0] == 200
print(count, "requests")
