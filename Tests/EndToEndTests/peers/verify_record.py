"""Verifies a record from its description alone (docs/audit-format.md), sharing no code with KruxOS.

Checks numbering, chain, body hashes, canonical bodies, signatures, keys and rotations, epochs and vouchers, the tree and
its tiles, checkpoints, pruning, anchors and receipts. Witnesses' cosignatures are not verified: their keys are not in the
record. With --trust, one epoch must have this root key (hex), and each epoch after it a voucher of the one before.

usage: verify_record.py DB [--receipt FILE]... [--anchor FILE]... [--trust ROOT_HEX]

Prints `OK rows=N epochs=E tiles=T checkpoints=C receipts=R anchors=A pruned=P` (anchors: the checkpoints in the anchor
files) and exits 0, or `FAILED at row N: why` or `FAILED: why` and exits 1.
"""

import argparse
import base64
import hashlib
import json
import os
import re
import sqlite3
import sys
import urllib.parse
from contextlib import contextmanager

from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

COLUMNS = "seq, epoch, key_id, prev, body_hash, sig, body"
PHASES = {"intent", "outcome", "approval", "policy", "admin", "key", "prune"}
REQUIRED = {"v", "salt", "time", "phase", "principal"}


class Failure(Exception):
    """Why the record does not verify, and at which row if that is known."""

    def __init__(self, why, row=None):
        super().__init__(why)
        self.row = row


def check(condition, why, row=None):
    """Fails with `why` unless the condition holds."""
    if not condition:
        raise Failure(why, row)


@contextmanager
def within(place="", row=None):
    """Says for whatever fails inside where it was."""
    try:
        yield
    except Exception as error:
        why = str(error) if isinstance(error, Failure) else f"{type(error).__name__}: {error}"
        raise Failure(place + why, getattr(error, "row", None) or row) from None


def sha256(*parts):
    """SHA-256 over the parts, joined."""
    return hashlib.sha256(b"".join(parts)).digest()


def from_hex(text, size, what):
    """The bytes of a lower-case hex text of exactly `size` bytes."""
    check(isinstance(text, str) and re.fullmatch(f"[0-9a-f]{{{2 * size}}}", text), f"{what} is not {size} bytes in hex")
    return bytes.fromhex(text)


def from_base64(text, what):
    """The bytes of a text in padded standard base64, just as an encoder writes it."""
    data = base64.b64decode(text, validate=True)
    check(base64.b64encode(data).decode() == text, f"{what} is not canonical base64")
    return data


def verify_signature(public_key, message, signature, what):
    """Fails unless the Ed25519 signature over the message is the key's."""
    try:
        VerifyKey(public_key).verify(message, signature)
    except BadSignatureError:
        raise Failure(f"{what} does not verify") from None


def canonical(value):
    """A JSON value in RFC 8785, integers only."""
    if value is None or isinstance(value, (bool, str)):
        return json.dumps(value, ensure_ascii=False)  # For texts it escapes what RFC 8785 does, and nothing else.
    if isinstance(value, int):
        check(abs(value) < 2**53, "a number is outside ±(2^53-1)")
        return str(value)
    if isinstance(value, list):
        return "[" + ",".join(map(canonical, value)) + "]"
    check(isinstance(value, dict), "a number is not an integer")
    keys = sorted(value, key=lambda key: key.encode("utf-16-be"))
    return "{" + ",".join(canonical(key) + ":" + canonical(value[key]) for key in keys) + "}"


def parse_canonical(data, what):
    """The object in canonical JSON; a key twice, a space, another order or another escape fails."""
    value = json.loads(data.decode("utf-8"))
    check(isinstance(value, dict), f"{what} is not an object")
    check(canonical(value).encode("utf-8") == data, f"{what} is not canonical JSON")
    return value


def parse_body(data, seq):
    """A row's body, canonical and with the members every body has."""
    body = parse_canonical(data, "the body")
    check(not REQUIRED - body.keys(), f"members missing: {sorted(REQUIRED - body.keys())}")
    check(type(body["v"]) is int and body["v"] == 1, "v is not 1")
    from_hex(body["salt"], 16, "salt")
    check(type(body["time"]) is int, "time is not an integer")
    check(body["phase"] in PHASES, f"unknown phase {body['phase']!r}")
    check(body["phase"] not in ("key", "prune") or isinstance(body.get("detail"), dict), "the row has no detail")
    intent = body.get("intent")
    check(intent is None or type(intent) is int and 0 < intent < seq, "intent is not an earlier row")
    return body


def row_leaf(origin, epoch, seq, prev, public_key, body_hash, sig):
    """A row's leaf, after checking its signature."""
    numbers = epoch.to_bytes(8, "big") + seq.to_bytes(8, "big")
    head = b"kruxos/row/v1\0" + sha256(origin) + numbers + prev + sha256(public_key) + body_hash
    verify_signature(public_key, head, sig, "the row's signature")
    return sha256(b"\0", head, sig)


def tree(leaves):
    """All complete subtrees over the leaves: `[height][index]`."""
    levels = [leaves]
    while len(levels[-1]) > 1:
        below = levels[-1]
        levels.append([sha256(b"\1", below[i], below[i + 1]) for i in range(0, len(below) - 1, 2)])
    return levels


def root_at(levels, size):
    """The RFC 6962 root over the first `size` leaves."""
    root = None
    for height in range(size.bit_length()):
        if size >> height & 1:
            node = levels[height][(size >> height) - 1]
            root = sha256(b"\1", node, root) if root else node
    return root or sha256()


def root_from_proof(leaf, index, size, proof):
    """The root an inclusion proof leads to (RFC 9162, 2.1.3.2)."""
    check(index < size, "the index is outside the checkpoint's tree")
    node, last = leaf, size - 1
    for sibling in proof:
        check(last, "the inclusion proof is too long")
        if index & 1 or index == last:
            node = sha256(b"\1", sibling, node)
            while index and not index & 1:
                index, last = index >> 1, last >> 1
        else:
            node = sha256(b"\1", node, sibling)
        index, last = index >> 1, last >> 1
    check(last == 0, "the inclusion proof is too short")
    return node


class Note:
    """A checkpoint note, taken apart."""

    def __init__(self, text):
        head, _, tail = text.partition("\n\n")
        lines = head.split("\n")
        check(len(lines) == 3 and tail.endswith("\n"), "not a checkpoint note")
        check(re.fullmatch("0|[1-9][0-9]{0,18}", lines[1]), "the checkpoint's size is not a number")
        self.origin, self.size, self.root = lines[0].encode(), int(lines[1]), from_base64(lines[2], "the root")
        self.text, self.signatures = (head + "\n").encode(), []
        for line in tail[:-1].split("\n"):
            match = re.fullmatch(r"— ([^\s+]+) (\S+)", line)
            check(match, "a signature line of the checkpoint is malformed")
            self.signatures.append((match[1].encode(), from_base64(match[2], "a signature of the checkpoint")))

    def verify(self, public_key):
        """Checks that the key signed it, and once."""
        key_id = sha256(self.origin, b"\n\1", public_key)[:4]
        own = [sig[4:] for name, sig in self.signatures if name == self.origin and sig[:4] == key_id]
        check(len(own) == 1, f"the checkpoint has {len(own)} signatures by the epoch's checkpoint key")
        verify_signature(public_key, self.text, own[0], "the checkpoint's signature")


class Receipt:
    """A receipt, verified by itself, but for whose the root key is; a row is (seq, prev, key, sig, body)."""

    def __init__(self, data):
        head, _, self.note_text = data.decode("utf-8").partition("\n\n")
        match = re.fullmatch(r"c2sp\.org/tlog-proof@v1\nextra (.*)\nindex (0|[1-9][0-9]{0,18})((?:\n.+)*)", head)
        check(match, "not a tlog-proof@v1")
        self.note, self.index = Note(self.note_text), int(match[2])
        proof = [from_base64(line, "a hash of the proof") for line in match[3].split("\n")[1:]]
        check(all(len(sibling) == 32 for sibling in proof), "a hash of the proof is not 32 bytes")
        extra = parse_canonical(from_base64(match[1], "the extra data"), "the extra data")
        check(extra.keys() == {"v", "epoch", "row", "key_row", "checkpoint_key"}, "the extra data has other members")
        check(type(extra["v"]) is int and extra["v"] == 1, "the extra data is not version 1")
        self.epoch, checkpoint_key = extra["epoch"], from_hex(extra["checkpoint_key"], 32, "checkpoint_key")
        check(type(self.epoch) is int and self.note.origin.endswith(b"/%d" % self.epoch), "the epoch is not the origin's")
        self.row, leaf, _ = self.verify_row(extra["row"])
        self.key_row, _, body = self.verify_row(extra["key_row"])
        self.note.verify(checkpoint_key)
        check(root_from_proof(leaf, self.index, self.note.size, proof) == self.note.root, "the proof does not lead to the root")
        detail = body["detail"] if body["phase"] == "key" else {}
        check(detail.get("checkpoint_key") == checkpoint_key.hex(), "the key row does not bring the checkpoint key")

    def verify_row(self, row):
        """A ROW with its signature checked, its leaf and its body."""
        check(isinstance(row, dict) and row.keys() == {"seq", "prev", "key", "sig", "body"}, "a row has other members")
        seq, text = row["seq"], row["body"]
        check(type(seq) is int and seq > 0 and isinstance(text, str), "a row's seq or body is malformed")
        with within(row=seq):
            prev, key, sig = (from_hex(row[name], size, name) for name, size in (("prev", 32), ("key", 32), ("sig", 64)))
            body = text.encode("utf-8")
            leaf = row_leaf(self.note.origin, self.epoch, seq, prev, key, sha256(body), sig)
            return (seq, prev, key, sig, body), leaf, parse_body(body, seq)


class Epoch:
    """What is known of an epoch while its rows are read."""

    def __init__(self, number, first, install_id):
        self.number, self.first, self.origin = number, first, b"kruxos/%s/%d" % (install_id, number)
        self.root_key = self.row_key = self.checkpoint_key = None
        self.leaves, self.levels, self.vouched = [], [], False


class Record:
    """A record in its file."""

    def __init__(self, path):
        wal = path + "-wal"
        immutable = "" if os.path.exists(wal) and os.path.getsize(wal) else "&immutable=1"
        self.db = sqlite3.connect(f"file:{urllib.parse.quote(os.path.abspath(path))}?mode=ro{immutable}", uri=True)
        self.db.text_factory = bytes
        self.db.execute("BEGIN")
        [(self.install_id,)] = self.db.execute("SELECT value FROM meta WHERE key = 'install_id'")
        check(re.fullmatch(rb"[^\s+/]+", self.install_id), "the install id cannot be part of an origin")
        self.epochs, self.keys, self.notes, self.pruned, self.pruned_through = [], {}, [], [], 0

    def verify(self):
        """Checks everything in the file; how many rows, epochs, tiles and checkpoints there are."""
        rows = 0
        for kind, *row in self.db.execute(f"SELECT typeof(body), {COLUMNS} FROM audit ORDER BY seq"):
            rows += 1
            with within(row=rows):
                check(row[0] == rows, f"the row after {rows - 1} is {row[0]}")
                check(kind in (b"text", b"null"), "the body is not a text")
                self.verify_row(*row)
        check(rows, "there are no rows")
        for seq in self.pruned:
            check(seq <= self.pruned_through, "the body is gone and no prune row covers it", seq)
        for epoch in self.epochs:
            epoch.levels = tree(epoch.leaves)
        for seq, number, text in self.notes:
            with within("detail.previous.checkpoint: ", seq):
                check(self.verify_checkpoint(text)[1].number < number, "it is not of an earlier epoch")
        self.verify_keys()
        stored = self.db.execute("SELECT epoch, first_seq FROM epochs ORDER BY epoch").fetchall()
        check(stored == [(epoch.number, epoch.first) for epoch in self.epochs], f"the table epochs is not the rows': {stored}")
        columns = self.db.execute("SELECT name, hidden FROM pragma_table_xinfo('audit')")
        check({name.decode() for name, hidden in columns if hidden != 2} == set(COLUMNS.split(", ")), "audit stores other columns")
        return rows, len(self.epochs), self.verify_tiles(), self.verify_checkpoints()

    def verify_row(self, seq, number, key_id, prev, body_hash, sig, body):
        """Checks a row on top of those before it."""
        for value, size in (key_id, 32), (prev, 32), (body_hash, 32), (sig, 64):
            check(isinstance(value, bytes) and len(value) == size, f"a column is not {size} bytes")
        check(body is None or sha256(body) == body_hash, "the body hash differs")
        content = {} if body is None else parse_body(body, seq)
        phase, detail = content.get("phase"), content.get("detail")
        last = self.epochs[-1] if self.epochs else None
        first = not last or number != last.number
        if first:
            check(number > last.number if last else number == 1, f"epoch {number} follows {last.number if last else 'none'}")
            check(phase == "key", "an epoch's first row is not a key row")
            self.epochs.append(Epoch(number, seq, self.install_id))
            self.begin_epoch(self.epochs[-1], last, detail)
        epoch = self.epochs[-1]
        check(prev == (bytes(32) if first else epoch.leaves[-1]), "prev is not the leaf of the row before")
        reason = "is not in force" if key_id in self.keys else "no row introduced"
        check(key_id == sha256(epoch.row_key), f"it is signed by a key that {reason}")
        epoch.leaves.append(row_leaf(epoch.origin, number, seq, prev, epoch.row_key, body_hash, sig))
        if body is None:
            self.pruned.append(seq)
        elif phase == "prune":
            through = detail.get("through")
            check(type(through) is int and 0 <= through < seq, "detail.through is not an earlier row")
            self.pruned_through = max(self.pruned_through, through)
        elif phase == "key":
            if not first and detail.get("action") == "rotated":
                epoch.row_key = self.introduce(detail, "public_key", "row", epoch, seq)
                check(detail.get("key_id") == sha256(epoch.row_key).hex(), "detail.key_id is not the key's")
            if "checkpoint_key" in detail:
                check(epoch.checkpoint_key is None, "a second checkpoint key in one epoch")
                epoch.checkpoint_key = self.introduce(detail, "checkpoint_key", "checkpoint", epoch, seq)

    def begin_epoch(self, epoch, last, detail):
        """Takes an epoch's root key from its first row, and checks what links it to the epoch before."""
        epoch.root_key = epoch.row_key = self.introduce(detail, "public_key", "row", epoch, epoch.first)
        own = {"key_id": sha256(epoch.root_key).hex(), "install_id": self.install_id.decode(), "epoch": epoch.number}
        for name, value in own.items():
            check(detail.get(name) == value, f"detail.{name} is {detail.get(name)}, not {value}")
        previous, voucher, replaces = (detail.get(name) for name in ("previous", "voucher", "replaces"))
        check(replaces is None or re.fullmatch("[0-9]+/[0-9]+/[0-9a-f]{64}", replaces), "detail.replaces is malformed")
        check(isinstance(previous, dict) if last else previous is None and voucher is None, "detail.previous is wrong")
        if last:
            actual = {"epoch": last.number, "last_seq": epoch.first - 1, "last_leaf": last.leaves[-1].hex()}
            for name, value in actual.items():
                check(previous.get(name) == value, f"detail.previous.{name} is {previous.get(name)}, not {value}")
            if previous.get("checkpoint") is not None:
                self.notes.append((epoch.first, epoch.number, previous["checkpoint"]))
        if voucher is not None:
            check(last.checkpoint_key, "there is a voucher, and the epoch before has no checkpoint key")
            row_key, checkpoint_key = (from_hex(detail.get(name), 32, name).hex() for name in ("public_key", "checkpoint_key"))
            text = b"kruxos/epoch/v1\n" + epoch.origin + f"\n{row_key}\n{checkpoint_key}\n".encode()
            verify_signature(last.checkpoint_key, text, from_hex(voucher, 64, "detail.voucher"), "the voucher")
            epoch.vouched = True

    def introduce(self, detail, member, purpose, epoch, seq):
        """The key a key row brings; none is brought twice."""
        key = from_hex(detail.get(member), 32, f"detail.{member}")
        check(sha256(key) not in self.keys, "the key was introduced before")
        self.keys[sha256(key)] = (purpose.encode(), epoch.number, key, seq)
        return key

    def verify_keys(self):
        """Checks that the table keys holds exactly the keys the rows introduced."""
        missing = dict(self.keys)
        for key_id, *values in self.db.execute("SELECT key_id, purpose, epoch, public_key FROM keys"):
            check(key_id in missing, f"the table keys holds a key no row introduced, or twice: {key_id!r}")
            *known, seq = missing.pop(key_id)
            check(values == known, "the table keys differs from the row's key", seq)
        for *_, seq in missing.values():
            raise Failure("the table keys lacks the row's key", seq)

    def verify_tiles(self):
        """Checks that exactly the full tiles are stored; how many."""
        expected = {(epoch.number, height // 8, index): (epoch, nodes[256 * index:256 * (index + 1)])
                    for epoch in self.epochs for height, nodes in enumerate(epoch.levels) if height % 8 == 0
                    for index in range(len(nodes) // 256)}
        count = len(expected)
        for number, level, index, hashes in self.db.execute("SELECT epoch, level, number, hashes FROM tiles"):
            tile = f"tile {number}/{level}/{index}"
            check((number, level, index) in expected, f"{tile} is not one of the record's full tiles, or there twice")
            epoch, nodes = expected.pop((number, level, index))
            check(b"".join(nodes) == hashes, f"{tile} differs from the rows", epoch.first + (index << 8 * (level + 1)))
        for (number, level, index), (epoch, _) in expected.items():
            raise Failure(f"tile {number}/{level}/{index} is missing", epoch.first + (index << 8 * (level + 1)))
        return count

    def verify_checkpoint(self, text):
        """Checks a checkpoint note against the record; the note and its epoch."""
        note = Note(text)
        epoch = next((epoch for epoch in self.epochs if epoch.origin == note.origin), None)
        check(epoch, f"the checkpoint's origin {note.origin!r} is not an epoch of this record")
        check(epoch.checkpoint_key, "no row brought the epoch's checkpoint key")
        note.verify(epoch.checkpoint_key)
        size, row = len(epoch.leaves), epoch.first + max(min(note.size, len(epoch.leaves)), 1) - 1
        check(note.size <= size, f"the checkpoint has {note.size} rows, the epoch only {size}", row)
        check(note.root == root_at(epoch.levels, note.size), f"the root at size {note.size} is another", row)
        return note, epoch

    def verify_checkpoints(self):
        """Checks the stored checkpoints; how many."""
        places, epochs = set(), set()
        for number, size, text, cosigned in self.db.execute("SELECT epoch, size, note, cosigned FROM checkpoints ORDER BY size DESC"):
            with within(f"checkpoint {number}/{size}: "):
                note, epoch = self.verify_checkpoint(text.decode("utf-8"))
                check((epoch.number, note.size) == (number, size), "its columns are not its note's")
                check((number, size) not in places, "it is there twice")
                check(bool(cosigned) == (len(note.signatures) > 1), "the column cosigned is wrong")
                check(cosigned or number not in epochs, "it is neither the newest nor cosigned")
                places.add((number, size))
                epochs.add(number)
        return len(places)

    def verify_trust(self, root_key):
        """Checks that an epoch has the trusted root key, and that vouchers lead from it to every later one."""
        reached = False
        for epoch in self.epochs:
            check(epoch.vouched or not reached, "no voucher leads from the trusted root key to this epoch", epoch.first)
            reached = reached or epoch.root_key == root_key
        check(reached, "no epoch has the trusted root key")

    def verify_receipt(self, data):
        """Checks a receipt by itself, and then that it says what the record does."""
        receipt = Receipt(data)
        _, epoch = self.verify_checkpoint(receipt.note_text)
        check(receipt.index == receipt.row[0] - epoch.first, "its index is not its row's")
        check(receipt.key_row[2] == epoch.root_key, "its key row is not signed by the epoch's root key")
        for seq, prev, key, sig, body in receipt.row, receipt.key_row:
            stored = self.db.execute(f"SELECT {COLUMNS} FROM audit WHERE seq = ?", (seq,)).fetchone()
            check(stored, "the record does not have its row", seq)
            check(stored[:6] == (seq, epoch.number, sha256(key), prev, sha256(body), sig), "its row is not the record's", seq)
            check(stored[6] in (None, body), "its body is not the record's", seq)


def anchored_notes(data):
    """The checkpoint notes of an anchor file."""
    *parts, rest = data.decode("utf-8").split("\n\n")
    check(parts and len(parts) % 2 == 0 and not rest, "not checkpoint notes, each followed by an empty line")
    return [f"{head}\n\n{signatures}\n" for head, signatures in zip(parts[::2], parts[1::2])]


def verify(arguments):
    """Verifies what the command line names; the line to print."""
    record, anchors = Record(arguments.db), 0
    rows, epochs, tiles, checkpoints = record.verify()
    if arguments.trust is not None:
        record.verify_trust(from_hex(arguments.trust, 32, "--trust"))
    for path in arguments.receipt:
        with within(f"receipt {os.path.basename(path)}: "), open(path, "rb") as file:
            record.verify_receipt(file.read())
    for path in arguments.anchor:
        with within(f"anchor {os.path.basename(path)}: "), open(path, "rb") as file:
            for note in anchored_notes(file.read()):
                record.verify_checkpoint(note)
                anchors += 1
    return (f"OK rows={rows} epochs={epochs} tiles={tiles} checkpoints={checkpoints} receipts={len(arguments.receipt)} "
            f"anchors={anchors} pruned={len(record.pruned)}")


def main():
    """Prints the verdict; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("db", metavar="DB")
    parser.add_argument("--receipt", metavar="FILE", action="append", default=[])
    parser.add_argument("--anchor", metavar="FILE", action="append", default=[])
    parser.add_argument("--trust", metavar="ROOT_HEX")
    arguments = parser.parse_args()
    try:
        with within():
            verdict = verify(arguments)
    except Failure as failure:
        verdict = f"FAILED{f' at row {failure.row}' if failure.row else ''}: {failure}"
    print(" ".join(verdict.split()).encode("ascii", "backslashreplace").decode())
    return int(not verdict.startswith("OK "))


if __name__ == "__main__":
    sys.exit(main())
