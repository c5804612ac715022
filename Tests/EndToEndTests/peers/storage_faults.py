"""Kills, copies, backups, power cuts and failing system calls under load: what was acknowledged stays, and verifies.

usage: storage_faults.py KRUXOS FOLDER WHAT COUNT [SECONDS]

  kills      COUNT times SIGKILL at a random moment, beside queries, verifications and backups of the same home
  copies     COUNT times `kruxos.db` alone, copied once its log is empty, or after a stop
  backups    COUNT backups under load
  powercuts  COUNT times what the disk holds at a random moment, against SQLite writers that are known to lose rows and
             known to keep them; needs root, loop devices and ext4
  strace     each system call on the database, its log and `keys/head` fails once: EIO, ENOSPC, EROFS, death of the process;
             at most COUNT of each kind, chosen at random; 0 for all
  reset      COUNT bursts that meet the folding of the log, beside readers and other commands

FOLDER holds what is made meanwhile, and what is left of it when something was wrong. Within SECONDS, 2 unless given, a
quiet log is folded and a fault that went away is forgotten; a machine busy with other things needs longer.
"""

import collections
import glob
import http.client
import json
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time

kruxos, folder, what, count = sys.argv[1], os.path.abspath(sys.argv[2]), sys.argv[3], int(sys.argv[4])
promised = float(sys.argv[5]) if len(sys.argv) > 5 else 2
# Who started this may have blocked signals, and a child inherits that: strace would never stop.
signal.pthread_sigmask(signal.SIG_SETMASK, [])
seed = int(os.environ.get("SEED") or int.from_bytes(os.urandom(4), "big"))
random.seed(seed)
print("seed", seed, flush=True)
os.makedirs(folder, exist_ok=True)
scratch = tempfile.mkdtemp(prefix=what[0], dir=folder)
processes = set()
# Rows after which a new home is begun: to verify a record takes as long as the record is.
longest = 5000


def command(*arguments, code=0):
    result = subprocess.run([kruxos, *arguments], capture_output=True, text=True, timeout=300)
    assert code is None or result.returncode == code, (arguments, result.returncode, result.stdout, result.stderr)
    return result


def spawn(*arguments, **options):
    process = subprocess.Popen(arguments, text=True, **options)
    processes.add(process)
    return process


def end(process, number=signal.SIGKILL):
    process.send_signal(number)
    code = process.wait(60)
    processes.discard(process)
    return code


class Gateway:
    def __init__(self, home, *under):
        self.home = home
        with open(f"{scratch}/serve.log", "a") as log:
            self.process = spawn(*under, kruxos, "serve", "--home", home, "--port", "0", "--supervisor-port", "0", stdout=subprocess.PIPE, stderr=log)

    def ready(self):
        lines = [self.process.stdout.readline() for _ in range(3)]
        assert lines[0].startswith("agents"), (self.home, lines, open(f"{scratch}/serve.log").read()[-2000:])
        self.port = int(lines[0].rsplit(":", 1)[1])
        return self

    def agent(self, name):
        return json.loads(command("agent", "create", "--home", self.home, "--name", name, "--purpose", "load", "--json").stdout)["token"]

    def request(self, method, path, token=None, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, {"Authorization": f"Bearer {token}", "Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def call(self, token, content):
        return self.request("POST", "/v1/call", token, write_call(content))

    def kill(self):
        end(self.process)

    def stop(self):
        assert end(self.process, signal.SIGTERM) == 0, self.home


def write_call(content):
    """The content names the call; the files are few."""
    path = "f" + content.rsplit(".", 1)[-1][-1]
    return json.dumps({"capability": "filesystem.write", "arguments": {"path": path, "content": content}})


class Load:
    """Writers that call until they are stopped or the gateway is gone. `acknowledged` is what was answered with 200."""

    def __init__(self, gateway, token, writers=8):
        self.gateway, self.token = gateway, token
        self.acknowledged, self.refused = [], []
        self.stopping, self.first = threading.Event(), threading.Event()
        name = os.urandom(4).hex()
        self.threads = [threading.Thread(target=self.work, args=(f"{name}.{number}",), daemon=True) for number in range(writers)]
        for thread in self.threads:
            thread.start()
        assert self.first.wait(20), "no call was answered"

    def work(self, name):
        try:
            connection = http.client.HTTPConnection("127.0.0.1", self.gateway.port, timeout=30)
            number = 0
            while not self.stopping.is_set():
                content = f"{name}.{number}"
                connection.request("POST", "/v1/call", write_call(content), {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"})
                response = connection.getresponse()
                reply = json.loads(response.read())
                if response.status == 200:
                    self.acknowledged.append((reply["audit_seq"], content))
                else:
                    self.refused.append(reply)
                self.first.set()
                number += 1
        except (OSError, http.client.HTTPException, ValueError):
            pass

    def stop(self):
        """Lets each writer end its call. What was refused meanwhile was refused without a reason."""
        self.stopping.set()
        for thread in self.threads:
            thread.join()
        assert not self.refused, self.refused[:3]
        return self.acknowledged


def must_hold(rows, acknowledged, where):
    for seq, content in acknowledged:
        row = rows.get(seq)
        good = row and (row["capability"], row["outcome"], row["arguments"]["content"]) == ("filesystem.write", "succeeded", content)
        assert good, f"{where}: row {seq} was acknowledged for {content} and is {row}; {len(acknowledged)} were acknowledged, the record ends at {max(rows, default=0)}"


def recorded(home, after=0):
    lines = command("audit", "query", "--home", home, "--format", "jsonl", "--after", str(after), "--limit", "10000000").stdout
    return {row["seq"]: row for row in map(json.loads, lines.splitlines())}


def held(file, acknowledged):
    """Verifies a copy and looks into it without the product."""
    verdict = command("audit", "verify", "--db", file, code=None)
    assert verdict.returncode == 0, (file, verdict.returncode, verdict.stdout, verdict.stderr)
    connection = sqlite3.connect(f"file:{file}?immutable=1", uri=True)
    rows = {seq: json.loads(body) for seq, body in connection.execute("SELECT seq, body FROM audit")}
    connection.close()
    must_hold(rows, acknowledged, file)
    return len(rows)


def every_intent_ended(home):
    rows, still_open = looked_through(home)
    assert not still_open, f"{home}: no outcome is recorded, not even `unknown`, of the intents {sorted(still_open)}"
    return rows


def looked_through(home):
    rows = recorded(home)
    ended = [row["intent"] for row in rows.values() if row["phase"] == "outcome" and "intent" in row]
    intents = {seq for seq, row in rows.items() if row["phase"] == "intent"}
    assert len(set(ended)) == len(ended) and set(ended) <= intents, (home, sorted(ended))
    return rows, intents - set(ended)


def begin(name="home", at=None):
    home = f"{at or scratch}/{name}"
    gateway = Gateway(home).ready()
    return gateway, gateway.agent("load")


def await_true(question, seconds, words):
    """Asks until the answer is yes, and says how long that took."""
    since = time.monotonic()
    while not question():
        assert time.monotonic() - since < seconds, words() if callable(words) else words
        time.sleep(0.005)
    return time.monotonic() - since


def log_is_empty(home):
    try:
        return os.path.getsize(f"{home}/kruxos.db-wal") == 0
    except FileNotFoundError:
        return True


class Beside:
    """Runs something again and again until it is stopped; what it asserts is told by `stop`."""

    def __init__(self, *works):
        self.stopping, self.errors, self.counts = threading.Event(), [], collections.Counter()
        self.threads = [threading.Thread(target=self.run, args=(work,), daemon=True) for work in works]
        for thread in self.threads:
            thread.start()

    def run(self, work):
        try:
            while not self.stopping.is_set():
                work()
                self.counts[work.__name__] += 1
        except BaseException as error:
            self.errors.append(error)

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join()
        if self.errors:
            raise self.errors[0]
        return self.counts


def kills():
    total, homes, checks, counts = 0, 1, 0, collections.Counter()
    gateway, token = begin()
    base, everything = 0, []
    for number in range(count):
        if base > longest:
            gateway.stop()
            homes += 1
            gateway, token = begin(f"home{homes}")
            base, everything = 0, []
        load = Load(gateway, token)
        home = gateway.home

        def backup():
            before = everything + list(load.acknowledged)
            file = f"{scratch}/backup.db"
            command("backup", file, "--home", home)
            held(file, before)

        def query():
            before = list(load.acknowledged)
            must_hold(recorded(home, base), before, "a query beside the gateway")

        def verify():
            command("audit", "verify", "--home", home)

        beside = Beside(backup, query, verify)
        # The moment of the kill is the test's input, not a wait for something to happen.
        time.sleep(random.uniform(0.0, 0.6))
        gateway.kill()
        acknowledged = load.stop()
        # Half of the restarts recover the log while others read it.
        if number % 2:
            gateway = Gateway(home).ready()
        counts += beside.stop()
        if not number % 2:
            gateway = Gateway(home).ready()
        must_hold(recorded(home, base), acknowledged, f"kill {number}")
        everything += acknowledged
        total += len(acknowledged)
        base = max([base] + [seq for seq, _ in acknowledged])
        if number % 10 == 9 or number == count - 1:
            command("audit", "verify", "--home", home)
            must_hold(every_intent_ended(home), everything, f"all kills up to {number}")
            checks += 1
    gateway.stop()
    assert total > count and all(counts[name] for name in ("backup", "query", "verify")), (total, counts)
    print(f"kills: {count} kills, {total} acknowledged calls, {homes} homes, {checks} verified; beside them {counts['backup']} backups, {counts['query']} queries, {counts['verify']} verifications")


def copies():
    gateway, token = begin()
    total, slowest, homes, everything = 0, 0, 1, []
    for number in range(count):
        load = Load(gateway, token)
        time.sleep(0.3)
        everything += load.stop()
        total += len(load.acknowledged)
        home, file = gateway.home, f"{scratch}/copy.db"
        if number % 2:
            gateway.stop()
            assert log_is_empty(home), f"{os.path.getsize(home + '/kruxos.db-wal')} bytes of log after a stop"
        else:
            slowest = max(slowest, await_true(lambda: log_is_empty(home), promised, lambda: f"{promised} seconds after the last write the log has {os.path.getsize(home + '/kruxos.db-wal')} bytes"))
        shutil.copyfile(f"{home}/kruxos.db", file)
        held(file, everything)
        os.unlink(file)
        if number % 2:
            if everything[-1][0] > longest:
                homes, everything = homes + 1, []
                gateway, token = begin(f"home{homes}")
            else:
                gateway = Gateway(home).ready()
    gateway.stop()
    print(f"copies: {count} copies, {count // 2} of them after a stop, {total} acknowledged calls; the log was empty {slowest:.2f} s after the last answer at the latest")


def backups():
    gateway, token = begin()
    load, homes, total, slowest, rows = Load(gateway, token), 1, 0, 0, 0
    for number in range(count):
        # Backups begin anywhere between two folds of the log.
        time.sleep(random.uniform(0, 0.2))
        before, file, since = list(load.acknowledged), f"{scratch}/backup.db", time.monotonic()
        command("backup", file, "--home", gateway.home)
        slowest = max(slowest, time.monotonic() - since)
        rows = held(file, before)
        total += len(before)
        os.unlink(file)
        if rows > longest and number < count - 1:
            load.stop()
            gateway.stop()
            homes += 1
            gateway, token = begin(f"home{homes}")
            load = Load(gateway, token)
    acknowledged = load.stop()
    must_hold(recorded(gateway.home), acknowledged, "the record after the backups")
    gateway.stop()
    print(f"backups: {count} backups, {homes} homes, {total} rows looked for, {rows} rows in the last one; the slowest took {slowest:.2f} s")


def reset():
    gateway, token = begin()
    home, everything, folds, bursts, number = gateway.home, [], 0, 0, 0

    def query():
        before = everything[-200:]
        # From before the oldest of them: rows of one burst come in any order.
        must_hold(recorded(home, min([seq for seq, _ in before], default=1) - 1), before, "a query beside the gateway")

    def create():
        gateway.agent(f"a{os.urandom(6).hex()}")
        # Others must find the log quiet, too.
        beside.stopping.wait(random.uniform(0.3, 2))

    beside = Beside(query, create)
    # A machine busy with other things may fold later than every burst of a few.
    while number < count or not folds and number < 20 * count:
        number += 1
        load = Load(gateway, token, writers=random.choice([1, 4, 8]))
        time.sleep(random.uniform(0, 0.1))
        everything += load.stop()
        # The fold begins half a second after the last write, and the next burst about when it does.
        before = os.path.getsize(f"{home}/kruxos.db-wal")
        time.sleep(random.uniform(0.49, 0.56))
        folds += before > 0 and log_is_empty(home)
        assert not beside.errors, beside.errors
    counts = beside.stop()
    await_true(lambda: log_is_empty(home), promised, "the log was not folded")
    file = f"{scratch}/copy.db"
    shutil.copyfile(f"{home}/kruxos.db", file)
    answer = sqlite3.connect(f"file:{file}?immutable=1", uri=True).execute("PRAGMA integrity_check").fetchall()
    assert answer == [("ok",)], answer
    rows = held(file, everything)
    gateway.stop()
    command("audit", "verify", "--home", home)
    must_hold(every_intent_ended(home), everything, "the record after the stop")
    assert folds and counts["query"] and counts["create"], (folds, counts)
    print(f"reset: {number} bursts, {folds} met a log that was folded already, {number - folds} one that was not; {len(everything)} acknowledged calls, {rows} rows; beside them {counts['query']} queries, {counts['create']} agents")


def shell(*arguments):
    result = subprocess.run(arguments, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, (arguments, result.stdout, result.stderr)


control_writer = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA journal_mode = WAL")
connection.execute("PRAGMA synchronous = " + sys.argv[2])
connection.execute("CREATE TABLE acknowledged (number INTEGER PRIMARY KEY, filler TEXT)")
number = 0
while True:
    number += 1
    connection.execute("INSERT INTO acknowledged VALUES (?, ?)", (number, "x" * 200))
    print(number, flush=True)
    # Slow enough that its log is not folded between the last number that was heard and the cut.
    time.sleep(0.001)
"""


class Control:
    """An SQLite writer that says a number once its commit has returned."""

    def __init__(self, file, synchronous):
        self.file, self.last = file, 0
        reading, writing = os.pipe()
        self.process = spawn(sys.executable, "-c", control_writer, file, synchronous, stdout=writing)
        os.close(writing)
        self.reading = reading
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()

    def read(self):
        # As it comes, with no line that waits behind others.
        rest = b""
        while data := os.read(self.reading, 1 << 20):
            *lines, rest = (rest + data).split(b"\n")
            if lines:
                self.last = int(lines[-1])
        os.close(self.reading)

    def kill(self):
        end(self.process)
        self.thread.join()


def powercuts():
    """Disks are files on an ext4 of their own. To freeze that one stops all writes to all disks between two of them, also
    in the middle of an fsync, and leaves alone what the disks' own filesystems have not written yet: a copy of the files
    is then what the disks hold at one moment."""
    if os.geteuid() != 0:
        return print("SKIPPED: powercuts needs root")
    missing = [tool for tool in ("mkfs.ext4", "mount", "fsfreeze", "unshare") if not shutil.which(tool)]
    if missing:
        return print(f"SKIPPED: there is no {', '.join(missing)}")
    if "STORAGE_FAULTS_MOUNTS" not in os.environ:
        # Mounts of a namespace go away with it, and so do their loop devices, however this ends.
        os.rmdir(scratch)
        arguments = ["unshare", "--mount", "--propagation", "private", sys.executable, *sys.argv]
        os.execvpe("unshare", arguments, os.environ | {"STORAGE_FAULTS_MOUNTS": "1", "SEED": str(seed)})

    def disk(file, at, size):
        with open(file, "wb") as image:
            image.truncate(size)
        shell("mkfs.ext4", "-q", "-F", file)
        os.mkdir(at)
        shell("mount", "-o", "loop,noatime", file, at)

    host, names = f"{scratch}/host", ("product", "normal", "full")
    try:
        disk(f"{scratch}/host.img", host, 2 << 30)
        disk(f"{host}/probe", f"{scratch}/probe", 16 << 20)
        shell("fsfreeze", "-f", host)
        shell("fsfreeze", "-u", host)
        shell("umount", f"{scratch}/probe")
    except AssertionError as error:
        shutil.rmtree(scratch, ignore_errors=True)
        return print("SKIPPED: no loop device can be mounted:", *error.args)
    for name in names:
        disk(f"{host}/{name}", f"{scratch}/{name}", 256 << 20)
    os.mkdir(f"{scratch}/after")

    def after_the_cut(disk_name, look):
        """Mounts a disk as it was: the filesystem replays its journal."""
        shell("mount", "-o", "loop,noatime", f"{scratch}/{disk_name}.cut", f"{scratch}/after")
        try:
            return look(f"{scratch}/after")
        finally:
            shell("umount", f"{scratch}/after")

    home, token, everything = "home", None, []
    total, begun, lost, cuts_that_lost, acknowledged_by = 0, 0, 0, 0, collections.Counter()
    for number in range(count):
        # Each third cut meets a home that is just being made.
        fresh = number % 3 == 2
        name = f"new{number}" if fresh else home
        gateway, load = Gateway(f"{scratch}/product/{name}"), None
        controls = {synchronous: Control(f"{scratch}/{synchronous}/{number}.db", synchronous) for synchronous in names[1:]}
        if not fresh:
            gateway.ready()
            token = token or gateway.agent("load")
            load = Load(gateway, token)
        # The moment of the cut is the test's input.
        time.sleep(random.uniform(0, 0.6))
        acknowledged = everything + (list(load.acknowledged) if load else [])
        said = {synchronous: control.last for synchronous, control in controls.items()}
        shell("fsfreeze", "-f", host)
        try:
            for disk_name in names:
                shell("cp", "--sparse=always", f"{host}/{disk_name}", f"{scratch}/{disk_name}.cut")
        finally:
            shell("fsfreeze", "-u", host)
        gateway.kill()
        for writer in controls.values():
            writer.kill()
        if load:
            everything += load.stop()
        total += len(acknowledged)

        def product(at):
            """Starts on what is there, takes a call, and verifies."""
            nonlocal begun
            begun += fresh
            revived = Gateway(f"{at}/{name}").ready()
            health = revived.request("GET", "/health")
            assert health[1]["status"] == "ok", (number, fresh, health, open(f"{scratch}/serve.log").read()[-2000:])
            answer = revived.call(revived.agent(f"after{number}"), "after.0")
            assert answer[0] == 200, (number, answer)
            revived.stop()
            rows = every_intent_ended(f"{at}/{name}")
            must_hold(rows, ([] if fresh else acknowledged) + [(answer[1]["audit_seq"], "after.0")], f"cut {number}")
            command("audit", "verify", "--home", f"{at}/{name}")

        def control(synchronous):
            def look(at):
                if not os.path.exists(f"{at}/{number}.db"):
                    return said[synchronous]
                connection, highest = sqlite3.connect(f"{at}/{number}.db"), 0
                try:
                    (highest,) = connection.execute("SELECT coalesce(max(number), 0) FROM acknowledged").fetchone()
                except sqlite3.OperationalError as error:
                    assert "no such table" in str(error), error
                finally:
                    connection.close()
                return max(0, said[synchronous] - highest)

            return look

        after_the_cut("product", product)
        of_full, of_normal = (after_the_cut(synchronous, control(synchronous)) for synchronous in ("full", "normal"))
        assert of_full == 0, f"cut {number}: synchronous=FULL lost {of_full} of {said['full']}: the disks do not keep what was synced"
        lost, cuts_that_lost = lost + of_normal, cuts_that_lost + (of_normal > 0)
        acknowledged_by.update(said)
        for disk_name in names:
            os.unlink(f"{scratch}/{disk_name}.cut")
        for stale in glob.glob(f"{scratch}/*/{number}.db*"):
            os.unlink(stale)
        shutil.rmtree(f"{scratch}/product/new{number}", ignore_errors=True)
        if everything and everything[-1][0] > longest:
            home, token, everything = f"home{number}", None, []
    assert lost, "nothing that was not synced was lost: these were no power cuts"
    for name in names:
        shell("umount", f"{scratch}/{name}")
    shell("umount", host)
    print(f"powercuts: {count} cuts, {begun} of them while a home was made, {total} acknowledged rows looked for, none lost; SQLite with synchronous=FULL lost none of {acknowledged_by['full']}, with NORMAL {lost} of {acknowledged_by['normal']} in {cuts_that_lost} cuts")


# What can fail on a disk. Locks and closing cannot.
can_fail = {"pread64", "pwrite64", "read", "write", "fsync", "fdatasync", "openat", "unlink", "unlinkat", "ftruncate", "fallocate", "rename", "renameat2"}


class Strace:
    """Attached to a gateway's threads, for what they do with one of its files."""

    def __init__(self, gateway, path, *expressions):
        self.file = f"{scratch}/trace"
        self.process = spawn("strace", "-f", "-p", str(gateway.process.pid), "-o", self.file, "-P", f"{gateway.home}/{path}", *expressions, stderr=subprocess.PIPE)
        line = self.process.stderr.readline()
        assert "attached" in line, line

    def text(self):
        with open(self.file) as file:
            return file.read()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=20)
        processes.discard(self.process)
        return self.text()


def faults():
    if not shutil.which("strace"):
        return print("SKIPPED: there is no strace")
    gateway, token = begin()
    home, tried = gateway.home, 0
    try:
        Strace(gateway, "kruxos.db").stop()
    except AssertionError as error:
        gateway.stop()
        return print("SKIPPED: strace cannot attach:", *error.args)

    def call():
        nonlocal tried
        tried += 1
        content = f"s.{tried}"
        return content, *gateway.call(token, content)

    def quiet():
        await_true(lambda: log_is_empty(home), promised + 1, "the log was not folded")

    # How often each is called by one thread, from an empty log through two commits to an empty log again.
    calls = collections.Counter()
    for path in ("kruxos.db-wal", "kruxos.db", "keys/head"):
        quiet()
        trace = Strace(gateway, path)
        assert call()[1] == 200
        quiet()
        found = collections.Counter(match.groups() for match in re.finditer(r"^(\d+) +(\w+)\(", trace.stop(), re.MULTILINE))
        for (_, name), times in found.items():
            if name in can_fail:
                calls[path, name] = max(calls[path, name], times)
    assert all(calls[point] for point in (("kruxos.db-wal", "pwrite64"), ("kruxos.db-wal", "fdatasync"), ("kruxos.db", "pwrite64"), ("keys/head", "pwrite64"))), calls
    print("one call and its fold:", ", ".join(f"{name} of {path} {times}" for (path, name), times in calls.items()), flush=True)
    everywhere = [(path, name, number) for (path, name), times in sorted(calls.items()) for number in range(1, times + 1)]

    missed = []

    def chosen(error):
        """All in order; or at random until as many were met as are asked for. What was missed, because two calls are
        not alike to the last page, is tried twice again."""
        points = random.sample(everywhere, len(everywhere)) if count else everywhere
        for _ in range(3):
            for point in points:
                if count and hits[error] == count:
                    return
                yield point
            points = missed[:]
            missed.clear()

    def must_have_met(error):
        assert hits[error] >= (min(count, len(everywhere)) if count else 0.8 * len(everywhere)), (error, hits, len(everywhere))

    def all_is_there(where):
        command("audit", "verify", "--home", home)
        rows, still_open = looked_through(home)
        must_hold(rows, acknowledged, where)
        assert still_open <= forgotten, f"{where}: no outcome is recorded of the intents {sorted(still_open - forgotten)}"

    acknowledged, problems, forgotten, hits, told, slowest = [], [], set(), collections.Counter(), collections.Counter(), 0
    for error in ("EIO", "ENOSPC", "EROFS"):
        for path, name, number in chosen(error):
            quiet()
            where = f"{error} at {name} {number} of {path}"
            trace = Strace(gateway, path, "-e", f"trace={name}", "-e", f"inject={name}:error={error}:when={number}")
            content, status, reply = call()
            if status == 200:
                acknowledged.append((reply["audit_seq"], content))
                told["acknowledged"] += 1
            else:
                assert isinstance(reply.get("error"), dict) and reply["error"].get("error_type"), (where, status, reply)
                told[reply["error"]["error_type"]] += 1
            if "(INJECTED)" not in trace.text():
                # It meets the fold, or what comes after it.
                since = time.monotonic()
                while "(INJECTED)" not in trace.text() and time.monotonic() - since < promised and not log_is_empty(home):
                    time.sleep(0.01)
            hit = [line for line in trace.text().splitlines() if "(INJECTED)" in line]
            if not hit:
                # What comes next is no longer the call that was counted.
                trace.stop()
                missed.append((path, name, number))
                continue
            hits[error] += 1
            answers = []

            def healthy():
                answers.append(gateway.request("GET", "/health"))
                return answers[-1][1]["status"] == "ok"

            try:
                slowest = max(slowest, await_true(healthy, promised + 0.5, lambda: f"{where}, {hit}: still {answers[-1]}"))
            except AssertionError as problem:
                problems.append(str(problem))
            content, status, reply = call()
            if status == 200:
                acknowledged.append((reply["audit_seq"], content))
            else:
                problems.append(f"{where}, {hit}: the next call was answered {status} {reply}")
            trace.stop()
        gateway.stop()
        command("audit", "verify", "--home", home)
        gateway = Gateway(home).ready()
        rows, still_open = looked_through(home)
        must_hold(rows, acknowledged, f"after {error}")
        if still_open - forgotten:
            problems.append(f"{error}: after a stop and a start no outcome is recorded, not even `unknown`, of the intents {sorted(still_open - forgotten)}")
        forgotten |= still_open
        must_have_met(error)

    for index, (path, name, number) in enumerate(chosen("KILL")):
        quiet()
        where = f"KILL at {name} {number} of {path}"
        trace = Strace(gateway, path, "-e", f"trace={name}", "-e", f"inject={name}:signal=KILL:when={number}")
        try:
            content, status, reply = call()
            assert status == 200, (where, reply)
            acknowledged.append((reply["audit_seq"], content))
        except (OSError, http.client.HTTPException):
            pass
        try:
            gateway.process.wait(min(promised, 5))
            hits["KILL"] += 1
            trace.process.communicate(timeout=20)
            processes.discard(trace.process)
        except subprocess.TimeoutExpired:
            trace.stop()
            gateway.kill()
            missed.append((path, name, number))
        processes.discard(gateway.process)
        gateway = Gateway(home).ready()
        must_hold(recorded(home, max(0, acknowledged[-1][0] - 20)), acknowledged[-3:], where)
        if index % 10 == 9:
            all_is_there(where)
    all_is_there("after the last death")
    gateway.stop()
    must_have_met("KILL")
    print(f"strace: {dict(hits)} of {len(everywhere)} each; the calls were told {dict(told)}; well again after {slowest:.2f} s at the latest; {len(acknowledged)} acknowledged rows are there")
    problems += first_starts()
    assert not problems, f"{len(problems)} faults did not go away by themselves:\n" + "\n".join(problems)


def first_starts():
    """Death of the process at each step of making a home: the next start makes it, or goes on with what is there."""
    deaths, points, problems = 0, [(name, number) for name in ("mkdir", "pwrite64", "write", "fsync", "fdatasync", "ftruncate", "unlink", "rename") for number in range(1, 100)], {}
    beyond = set()
    if count:
        random.shuffle(points)
    for name, number in points:
        if deaths == (count or -1):
            break
        # A step that a start does not come to, and those after it.
        if any(name == other and number >= first for other, first in beyond):
            continue
        home = f"{scratch}/first"
        gateway = Gateway(home, "strace", "-f", "-D", "-o", f"{scratch}/trace", "-e", f"trace={name}", "-e", f"inject={name}:signal=KILL:when={number}")
        if gateway.process.stdout.readline().startswith("agents"):
            beyond.add((name, number))
            gateway.kill()
        else:
            assert gateway.process.wait(20) == -signal.SIGKILL, (name, number, gateway.process.returncode)
            processes.discard(gateway.process)
            deaths += 1
            last = [line for line in open(f"{scratch}/trace") if f" {name}(" in line][-1:]
            open(f"{scratch}/serve.log", "w").close()
            try:
                gateway = Gateway(home).ready()
                status, reply = gateway.call(gateway.agent("after"), "after.0")
                assert status == 200, (name, number, reply)
                gateway.stop()
                command("audit", "verify", "--home", home)
            except AssertionError as problem:
                reason = open(f"{scratch}/serve.log").read().strip() or str(problem)
                problems.setdefault(reason, []).append(f"{name} {number} {last}")
                if gateway.process in processes:
                    gateway.kill()
        shutil.rmtree(home, ignore_errors=True)
    unusable = sum(map(len, problems.values()))
    print(f"strace: {deaths} deaths in a first start, {unusable} homes that could not be started afterwards", flush=True)
    return [f"{len(places)} deaths in a first start, one at {places[0]}, and the next start says: {reason}" for reason, places in problems.items()]


modes = {"kills": kills, "copies": copies, "backups": backups, "powercuts": powercuts, "strace": faults, "reset": reset}
try:
    modes[what]()
    done = True
finally:
    for process in list(processes):
        process.kill()
        process.wait()
    if "done" not in globals():
        print("left for a look:", scratch)
shutil.rmtree(scratch, ignore_errors=True)
