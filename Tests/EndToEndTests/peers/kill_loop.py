"""SIGKILL under concurrent calls: nothing acknowledged is lost, no effect without its intent, interrupted effects are
`unknown`, and the record verifies after each round.

usage: kill_loop.py KRUXOS HOME TOKEN AGENT ROUNDS
"""

import http.client
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time

kruxos, home, token, agent, rounds = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5])
workspace = f"{home}/workspaces/{agent}"
seed = int.from_bytes(os.urandom(4), "big")
random.seed(seed)
print("seed", seed)


def start():
    process = subprocess.Popen([kruxos, "serve", "--home", home, "--port", "0", "--supervisor-port", "0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    lines = [process.stdout.readline() for _ in range(3)]
    assert lines[0].startswith("agents"), lines
    return process, int(lines[0].rsplit(":", 1)[1])


def work(port, name, acknowledged):
    """Calls until the gateway is gone; what was answered goes into `acknowledged`."""
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        for number in range(100000):
            if number % 3 == 2:
                arguments = {"command": "sh", "args": ["-c", f"echo {name}.{number} >> ran"]}
                call = {"capability": "process.run", "arguments": arguments}
            else:
                call = {"capability": "filesystem.write", "arguments": {"path": f"{name}.{number}", "content": "x"}}
            connection.request("POST", "/v1/call", json.dumps(call), {"Authorization": f"Bearer {token}", "Content-Type": "application/json"})
            response = connection.getresponse()
            reply = json.loads(response.read())
            if response.status == 200:
                acknowledged.append((reply["audit_seq"], call))
    except (OSError, http.client.HTTPException, ValueError):
        pass


def query(*arguments):
    result = subprocess.run([kruxos, "audit", "query", "--home", home, "--format", "jsonl", "--limit", "1000000", *arguments], capture_output=True, text=True, check=True)
    return [json.loads(line) for line in result.stdout.splitlines()]


unknown = total = 0
for round_number in range(rounds):
    process, port = start()
    acknowledged = []
    threads = [threading.Thread(target=work, args=(port, f"r{round_number}t{thread}", acknowledged)) for thread in range(4)]
    for thread in threads:
        thread.start()
    # The moment of the kill is the test's input, not a wait for something to happen.
    time.sleep(random.uniform(0.02, 0.25))
    process.send_signal(signal.SIGKILL)
    process.wait()
    for thread in threads:
        thread.join()
    # The next start records what was left open.
    process, _ = start()
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 0
    total += len(acknowledged)
    if round_number % 10 == 9 or round_number == rounds - 1:
        verdict = subprocess.run([kruxos, "audit", "verify", "--home", home], capture_output=True, text=True)
        assert verdict.returncode == 0, verdict.stdout + verdict.stderr
    rows = {row["seq"]: row for row in query("--agent", agent, "--last", "1h")}
    for seq, call in acknowledged:
        row = rows.get(seq)
        assert row and row["outcome"] == "succeeded" and row["capability"] == call["capability"], (seq, call, row)
    intents = {seq: row for seq, row in rows.items() if row["phase"] == "intent"}
    ended = [row for row in rows.values() if row["phase"] == "outcome" and "intent" in row]
    assert len({row["intent"] for row in ended}) == len(ended), "an intent ended twice"
    assert {row["intent"] for row in ended} == set(intents), "an intent has no outcome"
    unknown = sum(row["outcome"] == "unknown" for row in ended)
    announced = {row["arguments"].get("path", "").rsplit("/", 1)[-1] for row in intents.values()}
    for name in os.listdir(workspace):
        if name.startswith("r") and "." in name and name != "ran":
            assert name in announced, f"{name} was written without an intent"
    commands = {row["arguments"]["args"][1].split()[1] for row in intents.values() if row["capability"] == "process.run"}
    if os.path.exists(workspace + "/ran"):
        lines = open(workspace + "/ran").read().split()
        assert set(lines) <= commands, "a program ran without an intent"
        assert len(lines) == len(set(lines)), "a program ran twice"
print(f"{rounds} kills, {total} acknowledged calls, {unknown} unknown")
assert total > rounds
