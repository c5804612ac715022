"""Makes the home that `schema-N.tar.gz` holds, with the kruxos of the release that is to be kept.

usage: make.py KRUXOS HOME, then: tar -C HOME --exclude workspaces --exclude kruxos.lock -czf schema-N.tar.gz .

275 rows: an agent that writes, one that was revoked, a refused call, and three requests for approval, of which the
last was approved while the gateway was stopped.
"""

import json
import subprocess
import sys
import urllib.error
import urllib.request

kruxos, home = sys.argv[1:]


def command(*arguments):
    return subprocess.run([kruxos, *arguments, "--home", home], check=True, capture_output=True, text=True).stdout


token = json.loads(command("agent", "create", "--name", "coder", "--purpose", "Writes code", "--json"))["token"]
command("agent", "create", "--name", "gone", "--purpose", "Was here")
command("agent", "revoke", "gone")
with open(f"{home}/policies/agents/coder.yaml", "w") as file:
    file.write("agent: coder\ncapabilities:\n  filesystem.delete:\n    tier: approval_required\n    reason: Deleting is final\n")


class Gateway:
    def __enter__(self):
        self.process = subprocess.Popen([kruxos, "serve", "--home", home, "--port", "0", "--supervisor-port", "0"], stdout=subprocess.PIPE, text=True)
        self.url = [self.process.stdout.readline() for _ in range(3)][0].split()[-1]
        return self

    def call(self, capability, wait=0, **arguments):
        body = json.dumps({"capability": capability, "arguments": arguments, "wait": wait}).encode()
        request = urllib.request.Request(self.url + "/v1/call", body, {"Authorization": f"Bearer {token}", "Content-Type": "application/json"})
        try:
            return json.load(urllib.request.urlopen(request))
        except urllib.error.HTTPError as error:
            return json.load(error)

    def __exit__(self, *_):
        self.process.terminate()
        assert self.process.wait() == 0


def rows():
    return len(command("audit", "query", "--format", "jsonl", "--limit", "100000").splitlines())


with Gateway() as gateway:
    for name in ("f1", "f2", "f3"):
        gateway.call("filesystem.write", path=name, content=name)
    for name in ("f1", "f2", "f3"):
        gateway.call("filesystem.delete", path=name)
    command("approve", "accept", "ap_001", "--reason", "It is old")
    gateway.call("filesystem.list", path=".")
    command("approve", "reject", "ap_002", "--reason", "Keep it")
    gateway.call("filesystem.read", path="../../etc/passwd")
    # The approval's row comes after this.
    if (274 - rows()) % 2:
        gateway.call("filesystem.read", path="../../etc/shadow")
    while rows() < 274:
        gateway.call("filesystem.write", path=f"g{rows() % 7}", content="x" * 20)
command("approve", "accept", "ap_003")
assert rows() == 275, rows()
print(command("audit", "verify", "--db", f"{home}/kruxos.db"))
