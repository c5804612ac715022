"""Every command gets every value wrong: it ends by itself with a documented exit code and says why.

usage: hostile_commands.py KRUXOS HOME
"""

import os
import subprocess
import sys

kruxos, home = sys.argv[1:3]
documented = {0, 1, 3, 4, 5, 64, 69, 78}
wrong = [b"", b" ", b"\xff\xfe", b"\x01\x1b[2J", b"x" * 100000, b"-1", b"99999999999999999999", "é\u0301/../💥".encode(), b"../../..", b"%s%n", b"--", b"{"]
commands = [
    ["agent", "create", "--name", None, "--purpose", "p"], ["agent", "create", "--name", "n", "--purpose", None],
    ["agent", "show", None], ["agent", "rotate", None], ["agent", "revoke", None], ["agent", "restore", None],
    ["approve", "list", "--agent", None], ["approve", "show", None], ["approve", "accept", None],
    ["approve", "reject", None, "--reason", "r"], ["approve", "accept", "ap_999", "--reason", None],
    ["audit", "query", "--last", None], ["audit", "query", "--since", None], ["audit", "query", "--until", None],
    ["audit", "query", "--agent", None], ["audit", "query", "--capability", None], ["audit", "query", "--outcome", None],
    ["audit", "query", "--tier", None], ["audit", "query", "--session", None], ["audit", "query", "--limit", None],
    ["audit", "query", "--format", None], ["audit", "query", "--db", None], ["audit", "verify", "--db", None],
    ["notifications", "--agent", None], ["notifications", "--limit", None], ["watch", "--agent", None],
    ["config", "set", "policy", None], ["config", "validate", None], ["config", "check-policy", "--agent", None, "--capability", "filesystem.read"],
    ["config", "check-policy", "--agent", "a", "--capability", None], ["call", None], ["call", "filesystem.read", None],
    ["call", "filesystem.read", "--arguments", None], ["call", "system.time", "--agent", None], ["call", "system.time", "--wait", None],
    ["mcp", "--agent", None], ["serve", "--port", None], ["serve", "--supervisor-port", None], ["quickstart", "--agent", None, "--port", "x"],
    ["policy", "show", None], ["policy", "diff", None], ["policy", "diff", "1", None], ["policy", "activate", None],
    ["policy", "explain", "--agent", None, "--capability", "filesystem.read"], ["policy", "explain", "--agent", "a", "--capability", None],
    ["policy", "explain", "--agent", "a", "--capability", "filesystem.read", None],
    ["policy", "explain", "--agent", "a", "--capability", "filesystem.read", "--want", None],
    ["policy", "test", None], ["policy", "lint", "--policy", None], ["policy", "can", "--agent", None, "--capability", "process.run"],
    ["policy", "can", "--agent", "a", "--capability", "process.run", "--tier", None],
    ["policy", "can", "--agent", "a", "--capability", "process.run", "--where", None], ["policy", "replay", "--policy", None],
    ["policy", "replay", "--last", None], ["policy", "suggest", "--last", None], ["policy", "suggest", "--least", None],
    ["agent", "mode", None], ["agent", "mode", "a", None], ["agent", "role", "a", None], ["agent", "session", None, "--label", "x"],
    ["agent", "session", "s_1", "--label", None], ["agent", "create", "--name", "n", "--purpose", "p", "--role", None],
    ["config", "check-policy", "--agent", "a", "--capability", "filesystem.read", None],
    ["config", "check-policy", "--agent", "a", "--capability", "system.time", "--at", None],
    ["config", "check-policy", "--agent", "a", "--capability", "system.time", "--session-age", None],
    ["config", "check-policy", "--agent", "a", "--capability", "system.time", "--session-calls", None],
    ["config", "check-policy", "--agent", "a", "--capability", "system.time", "--session-label", None],
    ["agent", "resume", None], ["config", "set", "retention", None], ["audit", "query", "--after", None], ["audit", "query", "--before", None],
    ["audit", "query", "--phase", None], ["audit", "query", "--request", None], ["audit", "query", "--principal", None],
    ["audit", "show", None], ["audit", "stats", "--last", None], ["audit", "stats", "--db", None], ["audit", "replay", None],
    ["audit", "export", "--format", None], ["audit", "receipt", None], ["audit", "verify-receipt", None],
    ["audit", "verify", "--trust", None], ["audit", "verify", "--witness", None], ["audit", "verify", "--anchors", None],
    ["audit", "verify", "--from", None], ["audit", "verify", "--to", None], ["audit", "prune", "--yes", "--older-than", None],
    ["audit", "anchor", "add", "--witness", None, "--key", "x"], ["audit", "anchor", "add", "--witness", "http://127.0.0.1:1", "--key", None],
    ["audit", "anchor", "add", "--file", "f", "--every", None], ["audit", "anchor", "remove", None], ["audit", "anchor", "send", None],
    ["restore", None, "--yes"], ["witness", "serve", "--port", None], ["witness", "serve", "--port", "0", "--name", None, "--host", "256.1.1.1"],
    ["witness", "log", "add", None], ["witness", "log", "remove", None],
    [None], ["status", None],
]
count = 0
for command in commands:
    for value in wrong:
        arguments = [value if word is None else word.encode() for word in command] + [b"--home", os.fsencode(home)]
        result = subprocess.run([os.fsencode(kruxos), *arguments], stdin=subprocess.DEVNULL, capture_output=True, timeout=30)
        shown = (command, value[:30], result.returncode, result.stderr[-300:])
        assert result.returncode in documented, shown
        assert result.returncode == 0 or b"rror:" in result.stderr, shown
        assert b"Fatal error" not in result.stderr, shown
        # Usage errors are the argument parser's own words.
        assert result.returncode == 64 or b"\x1b" not in result.stdout + result.stderr, shown
        count += 1
for value in wrong[1:]:
    result = subprocess.run([os.fsencode(kruxos), b"status", b"--home", value], cwd=home, stdin=subprocess.DEVNULL, capture_output=True, timeout=30)
    assert result.returncode in documented and result.returncode != 0 and b"rror:" in result.stderr, (value[:30], result)
print(count, "commands")
