"""What a gateway's network capabilities do and refuse, against real servers in a private network.

usage: network.py KRUXOS FOLDER

Two network namespaces stand for the world and for the gateway's machine, joined by a veth pair. The world has public,
private, metadata and other special addresses, a DNS server, and HTTP and HTTPS servers on all of them; its certificates
come from an authority that the gate trusts, and some from one that it does not. The gateway runs in the other one, over
whose /etc a few files of FOLDER are mounted. Both namespaces end with this process, and nothing of the machine changes.

Whatever an attempt asks for, no packet may reach an address of the world that is not public, or a service of the gate's
own machine: every first packet of a connection is watched on both sides. Each attempt prints a line, and the last line
counts them. Needs root, else it exits with 77. ONLY in the environment, a regular expression, chooses among the groups.
"""

import base64, collections, contextlib, ctypes, functools, gzip, hashlib, http.client, http.server, ipaddress, itertools, json, os, re, shutil, signal
import socket, socketserver, ssl, struct, subprocess, sys, tempfile, threading, time, urllib.parse

if len(sys.argv) != 3:
    sys.exit("usage: network.py KRUXOS FOLDER")
if os.geteuid() != 0:
    print("SKIP: needs root")
    sys.exit(77)

kruxos, folder = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
libc = ctypes.CDLL(None, use_errno=True)
NEWNS, NEWNET, BIND, REC, PRIVATE, PDEATHSIG = 0x20000, 0x40000000, 4096, 16384, 1 << 18, 1

public4, public6, blocked4 = "93.184.216.34", "2606:2800:220:1::34", "93.184.216.35"
resolver, absent, own4, own6 = "93.184.216.53", "93.184.216.77", "93.184.216.99", "2606:2800:220:1::99"
private, metadata, shared, local6, sixtofour, nat64 = "10.9.8.7", "169.254.169.254", "100.64.0.9", "fd00:ec2::254", "2002:a09:807::1", "64:ff9b::a09:807"
world_addresses = [public4 + "/24", blocked4 + "/24", resolver + "/24", public6 + "/64", private, metadata, shared, local6, sixtofour, nat64]
public = {public4, public6, resolver, absent}  # What an attempt may reach unless it says more.
tcp_port, closed_port, trap_port = 9000, 9001, 3129

policy = """
name: network-peer
defaults: { tier: autonomous }
capabilities:
  network.*: { tier: autonomous }
  network.http_request:
    rules:
      - { conditions: [{ host: other.example }], tier: blocked, reason: "Not this host" }
      - { conditions: [{ host: ask.example }], tier: approval_required }
      - { conditions: [{ url_prefix: "http://site.example/get-only" }, { method: POST }], tier: blocked }
      - { conditions: [{ url_prefix: "http://site.example/post-only" }, { method: GET }], tier: blocked }
      - { conditions: [{ host: [private.example, narrow.example] }], tier: autonomous, sandbox: { addresses: [10.0.0.0/8] } }
    tier: autonomous
  process.run:
    rules:
      - { conditions: [{ args_contain: "-Aoffline" }], tier: autonomous, sandbox: workspace-write }
      - { conditions: [{ args_contain: "-Ainside" }], tier: autonomous, sandbox: { files: workspace-write, hosts: [private.example, narrow.example], addresses: [10.0.0.0/8] } }
    tier: autonomous
    sandbox:
      files: workspace-write
      hosts: [site.example, "*.sub.example", "site.example:9000", private.example, metadata.example, loop.example,
              mapped.example, mixed.example, own.example, rebind.example, flip.example]
"""

def must(value):
    if value != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

ends_with_parent = functools.partial(libc.prctl, PDEATHSIG, signal.SIGKILL)

def ip(*words):
    subprocess.run(["ip", *words], check=True, capture_output=True)

def put(path, content, mode=0o644):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        file.write(content)
    mode is None or os.chmod(path, mode)
    return path

def read(path):
    with open(path, "rb") as file:
        return file.read()

class Watch(threading.Thread):
    """The first packets of what comes in at an interface: SYNs, and UDP."""

    def __init__(self, interface):
        super().__init__(daemon=True)
        self.socket, self.dials = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3)), []
        self.socket.bind((interface, 3))
        self.start()

    def run(self):
        while True:
            data, (_, protocol, kind, *_) = self.socket.recvfrom(65536)
            if kind == 4 or protocol not in (0x0800, 0x86DD):  # going out, or neither IP nor IPv6
                continue
            with contextlib.suppress(IndexError, struct.error):
                start, transport, to = ((data[0] & 15) * 4, data[9], data[16:20]) if protocol == 0x0800 else (40, data[6], data[24:40])
                if transport == 17 or transport == 6 and data[start + 13] & 0x12 == 2:
                    self.dials.append([str(ipaddress.ip_address(to)), struct.unpack_from(">H", data, start + 2)[0]])

# ---- the world: names

types = {"A": 1, "CNAME": 5, "MX": 15, "TXT": 16, "AAAA": 28}
long_text = ["v=long; " + "x" * 247, "y" * 255, "end"]
names = {"site.example": {"A": [public4], "AAAA": [public6], "TXT": [["plain"], long_text]},
    "other.example": {"A": [blocked4]}, "ask.example": {"A": [public4]}, "four.example": {"A": [public4]}, "six.example": {"AAAA": [public6]},
    "private.example": {"A": [private]}, "narrow.example": {"A": [shared]}, "metadata.example": {"A": [metadata]},
    "loop.example": {"A": ["127.0.0.1"]}, "loop6.example": {"AAAA": ["::1"]}, "zero.example": {"A": ["0.0.0.0"]},
    "mapped.example": {"AAAA": ["::ffff:" + private]}, "ula.example": {"AAAA": [local6]}, "nat64.example": {"AAAA": [nat64]},
    "own.example": {"A": [own4]}, "own6.example": {"AAAA": [own6]}, "shared.example": {"A": [shared]}, "absent.example": {"A": [absent]},
    "alias.example": {"CNAME": ["site.example"]}, "inward.example": {"CNAME": ["private.example"]}, "round.example": {"CNAME": ["round.example"]},
    "post.example": {"MX": [(10, "mail.example"), (20, "mail2.example")]}, "quoted.example": {"TXT": [['say "hi" \\ there']]},
    "wide.example": {"TXT": [["%02d" % index + "z" * 250] for index in range(20)]}, "spoof.example": {"A": [public4]}, "sub.example": {"A": [public4]},
    "expired.example": {"A": [public4]}, "untrusted.example": {"A": [public4]}, "wrong.example": {"A": [public4]}}

class Names:
    """An authoritative DNS server, which counts what it is asked."""

    def __init__(self):
        self.counts = collections.Counter()
        self.udp, self.tcp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), socket.create_server((resolver, 53), backlog=64)
        self.udp.bind((resolver, 53))
        for serve in (self.serve_udp, self.serve_tcp):
            threading.Thread(target=serve, daemon=True).start()

    def serve_udp(self):
        while True:
            with contextlib.suppress(Exception):
                query, sender = self.udp.recvfrom(4096)
                if b"\5spoof" in query:  # First an answer to another number, and one to another question.
                    forged = struct.pack(">5H", 0x8580, 1, 1, 0, 0) + self.question(query) + self.record(b"\xc0\x0c", "A", private)
                    self.udp.sendto(bytes([query[0] ^ 1, query[1]]) + forged, sender)
                    self.udp.sendto(query[:2] + forged.replace(b"spoof", b"spook"), sender)
                reply = self.reply(query)
                if reply and len(reply) > 512:
                    reply = reply[:2] + struct.pack(">5H", 0x8780, 1, 0, 0, 0) + self.question(query)
                if reply:
                    self.udp.sendto(reply, sender)

    def serve_tcp(self):
        while True:
            with contextlib.suppress(Exception), self.tcp.accept()[0] as connection:
                connection.settimeout(2)
                stream = connection.makefile("rwb")
                while size := stream.read(2):
                    reply = self.reply(stream.read(struct.unpack(">H", size)[0]))
                    stream.write(struct.pack(">H", len(reply)) + reply)
                    stream.flush()

    question = staticmethod(lambda query: query[12 : query.index(b"\0", 12) + 5])
    encoded = staticmethod(lambda labels: b"".join(bytes([len(label)]) + label.encode() for label in labels))

    @classmethod
    def record(cls, owner, kind, value):
        if kind in ("A", "AAAA"):
            data = ipaddress.ip_address(value).packed
        elif kind == "TXT":
            data = cls.encoded(value)
        else:
            data = (struct.pack(">H", value[0]) if kind == "MX" else b"") + cls.encoded((value[1] if kind == "MX" else value).split(".")) + b"\0"
        return owner + struct.pack(">HHIH", types[kind], 1, 0, len(data)) + data

    def lookup(self, name, kind):
        """The values of a name; None where there is no such name."""
        count, inside, found = self.counts[name + " " + kind], "127.0.0.1" if "loop" in name else private, names.get(name, {}).get(kind, [])
        self.counts[name + " " + kind] += 1
        if name in ("rebind.example", "rebind-loop.example", "flip.example"):
            found = [inside if (count % 2 if name[0] == "f" else count) else public4]
        elif name == "mixed.example":
            found = [public4, private][:: 1 if count % 2 else -1]
        elif name.endswith((".nip.example", ".sub.example")):
            found = [name.removesuffix(".nip.example") if ".nip." in name else public4]
        else:
            return found if name in names else None
        return found if kind == "A" else []

    def reply(self, query):
        labels, position = [], 12
        while query[position]:
            labels.append(query[position + 1 : position + 1 + query[position]].decode().lower())
            position += 1 + query[position]
        name, number = ".".join(labels), struct.unpack_from(">H", query, position + 1)[0]
        kind = next((text for text, value in types.items() if value == number), str(number))
        if name in ("mute.example", "servfail.example"):
            return None if name == "mute.example" else query[:2] + struct.pack(">5H", 0x8582, 1, 0, 0, 0) + self.question(query)
        if name == "malformed.example":  # A name that points to itself.
            return query[:2] + struct.pack(">5H", 0x8580, 1, 1, 0, 0) + self.question(query) + b"\xc0" + bytes([len(self.question(query)) + 12]) * 9
        records, owner, found = [], b"\xc0\x0c", self.lookup(name, kind)
        for target in names.get(name, {}).get("CNAME", []) if kind != "CNAME" else []:
            records.append(self.record(owner, "CNAME", target))
            owner, found = self.encoded(target.split(".")) + b"\0", self.lookup(target, kind) if target != name else []
        code = 3 if found is None else 0
        records += [self.record(owner, kind, value) for value in found or []]
        return query[:2] + struct.pack(">5H", 0x8580 | code, 1, len(records), 0, 0) + self.question(query) + b"".join(records)

# ---- the world: HTTP

requests = []
pattern = bytes(range(256)) * 256

def pieces(count):
    return (pattern[: count - start] for start in range(0, count, len(pattern)))

def big_content(count):
    return b"".join(pieces(count))

bomb = functools.cache(lambda: gzip.compress(bytes(128 << 20), 1))

# Content, status and headers, from the fields of the query.
pages = {"/": lambda _: ("hello from the world\n", 200, [("Content-Type", "text/plain"), ("X-Many", "one"), ("X-Many", "two")]),
    "/redirect": lambda query: ("moved", int(query.get("code", 302)), [("Location", query["to"])] if "to" in query else []),
    "/loop": lambda _: ("", 302, [("Location", "/loop")]),
    "/chain": lambda query: ("", 302, [("Location", f"/chain?left={int(query['left']) - 1}" if query["left"] != "1" else "/")]),
    "/status": lambda query: ("as asked", int(query["code"])),
    "/binary": lambda _: (bytes(range(256)),),
    "/umlauts": lambda _: ("ä" * 50,),
    "/cookie": lambda _: ("ok", 200, [("Set-Cookie", "a=1; Path=/"), ("Set-Cookie", "b=2; Path=/")]),
    "/gzip": lambda _: (bomb(), 200, [("Content-Encoding", "gzip")]),
    "/headers-bomb": lambda query: ("small", 200, [(f"X-Bomb-{index}", "b" * 1000) for index in range(int(query.get("kib", 200)))]),
    "/range": lambda query: (b"0123456789"[query["begin"] : query["end"] + 1], 206, [("Content-Range", f"bytes {query['begin']}-{query['end']}/10")])}
# What goes out byte by byte before the connection is closed.
raw_pages = {"/big": lambda query: itertools.chain([b"HTTP/1.1 200 OK\r\nContent-Length: %s\r\n\r\n" % query["bytes"].encode()], pieces(int(query["bytes"]))),
    "/endless": lambda _: [b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", *[pattern] * 4096],
    "/slow": lambda _: itertools.chain([b"HTTP/1.1 200 OK\r\nContent-Length: 60\r\n\r\n."], (time.sleep(1) or b"." for _ in range(20))),
    "/silent": lambda _: time.sleep(20) or [],
    "/truncated": lambda _: [b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nonly this"],
    "/garbage": lambda _: [b"this is no HTTP at all\r\n\r\n"],
    "/hangup": lambda _: [],
    "/chunked": lambda _: [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"],
    "/bad-chunk": lambda _: [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n"]}

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30
    log_message = lambda *_: None

    def setup(self):
        self.request.settimeout(self.timeout)
        if self.server.tls:
            self.request = self.server.tls.wrap_socket(self.request, server_side=True)
        super().setup()

    def send(self, content, status=200, headers=()):
        content = content.encode() if isinstance(content, str) else content
        self.send_response(status)
        for name, value in [*headers, *([("Content-Length", str(len(content)))] if status not in (204, 304) else [])]:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD" and status not in (204, 304):
            self.wfile.write(content)

    def answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        address, headers = self.connection.getsockname()[0], {name.lower(): value for name, value in self.headers.items()}
        seen = {"method": self.command, "host": headers.get("host", ""), "path": self.path, "headers": headers, "tls": self.server.tls is not None,
                "address": address.removeprefix("::ffff:") if "." in address else address}
        requests.append(seen)
        url = urllib.parse.urlsplit(self.path)
        query = {name: values[0] for name, values in urllib.parse.parse_qs(url.query).items()}
        if "range" in headers:
            query["begin"], query["end"] = map(int, re.fullmatch(r"bytes=(\d+)-(\d+)", headers["range"]).groups())
        if self.server.trap:
            self.send("TRAP")
        elif url.path in ("/echo", "/get-only", "/post-only"):
            self.send(json.dumps(seen | {"body": body.decode("latin-1")}), headers=[("Content-Type", "application/json")])
        elif url.path in raw_pages:
            self.close_connection = True
            for part in raw_pages[url.path](query):
                self.wfile.write(part)
        else:
            self.send(*pages.get(url.path, lambda _: ("nothing here", 404))(query))

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = answer

class Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    daemon_threads = allow_reuse_address = True
    request_queue_size = 64
    address_family = socket.AF_INET6
    handle_error = lambda *_: None

    def __init__(self, port, tls=None, trap=False):
        self.tls, self.trap = tls, trap
        super().__init__(("::", port), Handler, bind_and_activate=False)
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self.server_bind()
        self.server_activate()
        threading.Thread(target=self.serve_forever, daemon=True).start()

def certificates(place):
    """Authorities and certificates, and the context of a server that picks among them by name."""
    os.makedirs(place)
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]

    def openssl(*words):
        subprocess.run(["openssl", *words], check=True, capture_output=True, cwd=place)

    def certificate(name, authority, subjects, days=(-1, 20)):
        openssl("req", *key, "-subj", "/CN=" + name, "-keyout", name + ".key", "-out", name + ".csr")
        put(f"{place}/{name}.ext", f"basicConstraints=critical,CA:FALSE\nextendedKeyUsage=serverAuth\nsubjectAltName={','.join(subjects)}\n")
        put(f"{place}/{name}.cnf", f"[ca]\ndefault_ca=x\n[x]\ndatabase={put(f'{place}/{name}.db', '')}\nnew_certs_dir={place}\nrand_serial=yes\n"
            "policy=p\ndefault_md=sha256\nunique_subject=no\n[p]\ncommonName=supplied\n")
        first, last = (time.strftime("%Y%m%d%H%M%SZ", time.gmtime(time.time() + day * 86400)) for day in days)
        openssl("ca", "-batch", "-config", name + ".cnf", "-in", name + ".csr", "-out", name + ".crt", "-cert", authority + ".crt",
                "-keyfile", authority + ".key", "-startdate", first, "-enddate", last, "-extfile", name + ".ext", "-notext")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(f"{place}/{name}.crt", f"{place}/{name}.key")
        return context

    for name in ("trusted", "stranger"):
        openssl("req", "-x509", *key, "-days", "30", "-subj", "/CN=" + name, "-keyout", name + ".key", "-out", name + ".crt",
                "-addext", "keyUsage=critical,keyCertSign,cRLSign")
    wrong = {"untrusted.example": ("stranger", (-1, 20)), "untrusted.sub.example": ("stranger", (-1, 20)), "expired.example": ("trusted", (-20, -10)), "wrong.example": ("trusted", (-1, 20))}
    hosts = [*(names.keys() - wrong.keys()), "rebind.example", "rebind-loop.example", "flip.example", "mixed.example", "*.sub.example"]
    site = certificate("site", "trusted", ["DNS:" + host for host in hosts] + [f"IP:{address.split('/')[0]}" for address in world_addresses])
    by_name = {name: certificate(name, authority, ["DNS:" + ("elsewhere.example" if name == "wrong.example" else name)], days) for name, (authority, days) in wrong.items()}
    site.sni_callback = lambda connection, name, _: setattr(connection, "context", by_name.get(name, site))
    return site

# ---- the gate

class Wrong(Exception): pass

def expect(truth, *why):
    if not truth:
        raise Wrong(" ".join(str(part)[:400] for part in why))

class World:
    """The world's process, and what the tests ask it."""

    def __init__(self, tls):
        self.control, theirs = socket.socketpair()
        self.process = os.fork()
        self.stream = (self.control if self.process else theirs).makefile("rw")
        (theirs if self.process else self.control).close()
        try:
            self.process or self.live(tls)
        except BaseException as error:
            print("the world ended:", repr(error), getattr(error, "stderr", ""), file=sys.stderr, flush=True)
        if self.process == 0:
            os._exit(0)
        self.stream.readline()

    def live(self, tls):
        """Says when its namespace is there, sets it up when asked the first time, then answers about itself."""
        ends_with_parent()
        must(libc.unshare(NEWNET))
        self.say(None)
        self.stream.readline()
        ip("link", "set", "w0", "up")
        for address in world_addresses:
            ip("addr", "add", address, "dev", "w0", *(["nodad"] if ":" in address else []))
        watch, dns, servers = Watch("w0"), Names(), [Server(80), Server(443, tls), Server(tcp_port)]
        self.say(len(servers))
        for what, argument in map(json.loads, self.stream):
            if what == "clear":
                del requests[:], watch.dials[:]
                dns.counts.clear()
            dns.counts.pop(f"{argument} A", None)
            self.say({"requests": requests, "dials": watch.dials, "queries": dns.counts}.get(what))

    def say(self, value):
        self.stream.write(json.dumps(value) + "\n")
        self.stream.flush()

    def ask(self, what, argument=None):
        self.say([what, argument])
        return json.loads(self.stream.readline())

    def stop(self):
        self.control.shutdown(socket.SHUT_RDWR)
        os.waitpid(self.process, 0)

class Gate:
    """The gateway, with one agent."""

    def __init__(self, scratch):
        self.home, self.log = scratch + "/home", scratch + "/gateway.log"
        self.workspace = self.home + "/workspaces/tester"
        put(scratch + "/user/.netrc", "machine site.example login netrc password from-netrc\ndefault login netrc password from-netrc\n", 0o600)
        self.environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "HOME": scratch + "/user"}
        self.proxies = {name: f"http://127.0.0.1:{trap_port}" for name in "http_proxy https_proxy all_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY".split()}
        self.token = json.loads(self.run("agent", "create", "--name", "tester", "--purpose", "tests", "--json").stdout)["token"]
        put(self.home + "/policies/org.yaml", policy, 0o600)
        self.start()

    def run(self, *words):
        return subprocess.run([kruxos, *words, "--home", self.home], env=self.environment, capture_output=True, text=True, timeout=120)

    def start(self):
        with open(self.log, "ab") as log:
            line, environment = [kruxos, "serve", "--home", self.home, "--port", "7700", "--supervisor-port", "7800"], self.environment | self.proxies
            self.process = subprocess.Popen(line, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, preexec_fn=ends_with_parent)
        expect(all(self.process.stdout.readline() for _ in range(3)), "the gateway did not start:", read(self.log)[-390:])

    def stop(self):
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(15)
        self.process.kill()
        self.process.wait()

    def ask(self, method, path, content=None):
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", 7700, timeout=90)) as connection:
            connection.request(method, path, content and json.dumps(content), {"Authorization": "Bearer " + self.token, "Content-Type": "application/json"})
            return json.loads(connection.getresponse().read())

def call(capability, **arguments):
    return gate.ask("POST", "/v1/call", {"capability": capability, "arguments": arguments})

def error_of(reply):
    return reply.get("error", {}).get("error_type")

def data_of(reply):
    expect(reply.get("status") == "succeeded", "failed:", json.dumps(reply))
    return reply["data"]

def refused(reply, *kinds):
    expect(error_of(reply) in kinds, "expected", "/".join(map(str, kinds)) + ", got", json.dumps(reply))

def fetch(url, **arguments):
    return data_of(call("network.http_request", url=url, **arguments))

def content(data):
    return base64.b64decode(data["body"]) if data["encoding"] == "base64" else data["body"].encode()

def moved_to(url, code=302, base="http://site.example"):
    return f"{base}/redirect?code={code}&to={urllib.parse.quote(url, safe='')}"

def peak_memory():
    return int(re.search(rb"VmHWM:\s+(\d+)", read(f"/proc/{gate.process.pid}/status"))[1]) << 10

counted = collections.Counter()

@contextlib.contextmanager
def attempt(name, may=()):
    """One attempt: what is in it may raise, and then has failed; `may` are addresses it may reach besides the public ones."""
    name, why = name.encode("unicode_escape").decode(), None
    world.ask("clear")
    own.dials.clear()
    try:
        yield
    except Exception as error:
        why = str(error) if isinstance(error, Wrong) else repr(error)
    if gate.process.poll() is not None:
        why = f"the gateway ended with {gate.process.returncode}: {read(gate.log)[-300:]} {why or ''}"
        gate.start()
    time.sleep(0.03)
    reached = [dial for dial in world.ask("dials") if dial[0] not in public.union(may)] + [dial for dial in own.dials if dial[1] not in (7700, 7800)]
    if reached:
        why = f"reached {reached[:5]} {why or ''}"
    counted[why is not None] += 1
    print(f"FAIL {name}: {' '.join(why.split())}" if why is not None else f"ok {name}", flush=True)

def trial(name, action, /, *arguments, **more):
    with attempt(name):
        action(*arguments, **more)

def fits(url, kinds, capability="network.http_request", **arguments):
    refused(call(capability, url=url, **arguments), *kinds)

def gives(url, expected, **arguments):
    """Fields of an answer; of `redirects` their number, of `stopped` whether it is there."""
    data = fetch(url, **arguments)
    found = data | {"redirects": len(data["redirects"]), "stopped": bool(data.get("stopped")), "location": data["headers"].get("location")}
    expect(expected.items() <= found.items(), "expected", expected, "got", data)

def echoes(expected, kept=(), absent=(), url="http://site.example/echo", **arguments):
    """What the server got: fields, headers that are there with these values, and headers that are not."""
    echo = json.loads(content(fetch(url, **arguments)))
    expect(expected.items() <= echo.items() and dict(kept).items() <= echo["headers"].items() and not set(absent) & echo["headers"].keys(), expected, "got", echo)

# ---- attempts: addresses

# What is neither a name nor a plain address may also be refused as such, or because a rule on hosts cannot judge it.
odd = ("AddressRefused", "InvalidArguments", "NotFound", "PermissionDenied")
plainly_inside = ["127.0.0.1", "[::1]", "localhost", "169.254.169.254", "[fd00:ec2::254]", "10.9.8.7", "100.64.0.9", "0.0.0.0", "[::]", "[::ffff:169.254.169.254]",
    "[::ffff:127.0.0.1]", "[64:ff9b::a09:807]", "[2002:a09:807::1]", "192.168.1.1", "172.16.0.1", "198.18.0.1", "240.0.0.1", "255.255.255.255", "224.0.0.1",
    "[ff02::1]", own4, f"[{own6}]", "metadata.example", "169.254.169.254.nip.example", "loop.example", "loop6.example", "zero.example", "mapped.example",
    "ula.example", "nat64.example", "own.example", "own6.example", "shared.example", "inward.example", "narrow.example", "127.0.0.1:7700"]
oddly_inside = ["2130706433", "0x7f.1", "0x7f000001", "0177.0.0.1", "127.1", "0", "127.0.0.1.", "localhost.", "LOCALHOST", "%31%32%37.0.0.1", "①②⑦.⓪.⓪.①", "2852039166",
    "0xa9fea9fe", "169.254.43518", "0251.0376.0251.0376", "[::127.0.0.1]", "[0:0:0:0:0:ffff:7f00:1]", "[fe80::1%25lo]", "[::ffff:a09:807]", "a.localhost",
    "10.9.8.7%00.site.example", "site.example@127.0.0.1", "127.0.0.1\\@site.example", "127。0。0。1", "[::ffff:0:127.0.0.1]"]

def rebinds(name, times, reset=True, scheme="http", capability="network.http_request", **arguments):
    """DNS answers differently from one question to the next; what was checked is what is connected to."""
    succeeded = 0
    for _ in range(times):
        if reset:
            world.ask("reset", name)
        target = {"host": name, "port": 80} if capability == "network.port_check" else {"url": f"{scheme}://{name}/"}
        reply = call(capability, **target, **arguments)
        if error_of(reply) != "AddressRefused":
            succeeded += 1
            expect(data_of(reply)["address"] == public4 and "TRAP" not in reply["data"].get("body", ""), reply)
    expect(succeeded or not reset, "no request at all succeeded")

def does_not_arrive(url, **arguments):
    """A redirect that leads where nothing may go: an error, or the redirect itself and why it was not followed."""
    reply = call("network.http_request", url=url, **arguments)
    if error_of(reply) not in odd:
        data = data_of(reply)
        expect(data.get("stopped") and 300 <= data["status"] < 400 and data["headers"].get("location") and b"root:" not in content(data), reply)

def addresses():
    for host in plainly_inside:
        # Where an address in brackets cannot be judged, the rule that blocks a host answers; no rule speaks of downloads.
        trial(f"address: http://{host}/", fits, f"http://{host}/", ("AddressRefused", "PermissionDenied")[: 1 + (host[0] == "[")])
        trial(f"address: download of http://{host}/", fits, f"http://{host}/", ("AddressRefused",), "network.download", path="inside")
    for host in oddly_inside:
        trial(f"address: http://{host}/", fits, f"http://{host}/", odd)
        trial(f"address: download of http://{host}/", fits, f"http://{host}/", odd, "network.download", path="inside")
    for url in ["http://private.example/", "https://private.example/", moved_to("http://private.example/")]:
        with attempt("address: a rule allows " + url, may=[private]):
            gives(url, {"address": private, "status": 200})
    with attempt("address: a rule for a name is none for its address", may=[private]):
        does_not_arrive(moved_to("http://10.9.8.7/", base="http://private.example"))
        expect([request["host"] for request in world.ask("requests")] == ["private.example"], world.ask("requests"))
    for name, times, options in [("rebind.example", 50, {}), ("rebind-loop.example", 50, {}), ("flip.example", 50, {"reset": False}), ("mixed.example", 20, {"reset": False}),
        ("rebind.example", 10, {"scheme": "https"}),
        ("rebind.example", 20, {"capability": "network.download", "path": "rebound"}), ("rebind.example", 30, {"capability": "network.port_check"})]:
        trial(f"rebinding: {name}, {times} times {' '.join(map(str, options.values()))}", rebinds, name, times, **options)
    with attempt("rebinding: between a request and its redirect, 20 times"):
        for _ in range(20):
            world.ask("reset", "rebind.example")
            reply = call("network.http_request", url=moved_to("http://rebind.example/", base="http://rebind.example"))
            expect(error_of(reply) == "AddressRefused" or "stopped" in data_of(reply) or reply["data"]["address"] == public4, reply)

# ---- attempts: redirects

inside_targets = ["http://127.0.0.1/", "http://2130706433/", "http://0x7f.1/", "http://[::1]/", "http://[::ffff:169.254.169.254]/", "http://localhost/", "http://127.1/", "http://0/",
    "http://[fd00:ec2::254]/", "http://metadata.example/", "http://169.254.169.254.nip.example/", "http://10.9.8.7/", "https://own.example/", "http://127.0.0.1:7700/health"]
strange_targets = [
    "file:///etc/passwd", "ftp://site.example/", "gopher://127.0.0.1:7700/_x", "data:text/plain,root:", "http://u:p@site.example/echo", "http:///", "http://site.example:99999/",
    "http://[::1", "javascript:alert(1)", "//127.0.0.1/", "\\\\127.0.0.1\\", "http://" + "a" * 9000 + "/", "http://OTHER.example/", "http://other.example./", "http://oth%65r.example/",
    "http://site.example@other.example/", "http://other.example:80/", "//other.example/"]
credentials = {"authorization": "Bearer of-the-agent", "cookie": "session=1"}

def stops(target, code=302, method="GET"):
    gives(moved_to(target, code), {"status": code, "stopped": True, "location": target, "redirects": 0}, method=method)

def redirects():
    for code in [301, 302, 303, 307, 308]:
        for target in inside_targets:
            with attempt(f"redirect: {code} to {target}"):
                does_not_arrive(moved_to(target, code))
                does_not_arrive(moved_to(target, code), method="POST", body="x")
        trial(f"redirect: {code} to a blocked host stops", stops, "http://other.example/", code)
    for target in strange_targets:
        trial("redirect: to " + target[:40], does_not_arrive, moved_to(target))
    trial("redirect: POST to a blocked host stops", stops, "https://other.example/", 307, "POST")
    with attempt("redirect: to a host that needs approval stops"):
        stops("http://ask.example/")
        expect(all(request["host"] != "ask.example" for request in world.ask("requests")), "it was requested")
    for name, url, expected, arguments in [
        ("a chain that ends at a blocked host", moved_to(moved_to("http://other.example/", 307), 301), {"status": 307, "stopped": True, "redirects": 1}, {}),
        ("relative", moved_to("/echo?x=1"), {"status": 200, "url": "http://site.example/echo?x=1", "stopped": False, "redirects": 1}, {}),
        ("not followed when not asked to", moved_to("/echo"), {"status": 302, "location": "/echo", "redirects": 0}, {"follow_redirects": False}),
        ("without Location", "http://site.example/redirect", {"status": 302, "redirects": 0}, {}),
        ("ten are followed", "http://site.example/chain?left=10", {"status": 200, "stopped": False, "redirects": 10}, {}),
        ("eleven are not", "http://site.example/chain?left=11", {"status": 302, "stopped": True, "redirects": 10}, {}),
        ("a loop", "http://site.example/loop", {"status": 302, "stopped": True, "redirects": 10}, {})]:
        trial("redirect: " + name, gives, url, expected, **arguments)
    # A POST that 303 made a GET is decided as one from there on, also two steps further.
    for place, expected in [("get-only", {"status": 200, "stopped": False, "redirects": 2}), ("post-only", {"status": 302, "stopped": True, "redirects": 1})]:
        trial(f"redirect: a chain of a POST that became a GET, to {place}", gives,
              moved_to(moved_to(f"http://site.example/{place}"), 303), expected, method="POST", body="x")
    for code, method, body in [(301, "GET", ""), (302, "GET", ""), (303, "GET", ""), (307, "POST", "kept"), (308, "POST", "kept")]:
        trial(f"redirect: {code} of a POST is a {method}", echoes, {"method": method, "body": body}, url=moved_to("/echo", code), method="POST", body="kept")
    for target in ["http://www.sub.example/echo", "https://site.example/echo", f"http://site.example:{tcp_port}/echo", "//four.example/echo"]:
        trial("redirect: no credentials go to " + target, echoes, {}, absent=["authorization", "cookie"], url=moved_to(target), headers=credentials)
    trial("redirect: credentials stay within an origin", echoes, {}, credentials, url=moved_to("/echo"), headers=credentials)

# ---- attempts: what is asked, and what comes back

blocked_spellings = ["OTHER.EXAMPLE", "other.example.", "oth%65r.example", "other。example", "other.example:8080", "site.example@other.example", "site.example\\@other.example",
    "other.example#@site.example", "other.example?@site.example", "other.example\t", " other.example", "ｏther.example"]
wrong_urls = [
    "file:///etc/passwd", "ftp://site.example/", "gopher://site.example/", "data:,x", "javascript:1", "ws://site.example/", "//site.example/", "site.example", "http://", "http:///x",
    "http://user@site.example/", "http://user:pass@site.example/", "http://:@site.example/", "http://site.example:99999/", "http://site.example:0x50/", ""]
wrong_headers = [
    "Host", "HoSt", "content-length", "Transfer-Encoding", "connection", "proxy-authorization", "Proxy-Connection", "TE", "trailer", "upgrade", "keep-alive", "expect", "host ",
    " host", "host:", "", "x\r\nx-injected", "x\0", "x y", "ä"]
wrong_values = ["x\r\nx-injected: 1", "x\nx-injected: 1", "x\rx-injected: 1", "x\0y", "x\r\n\r\nGET / HTTP/1.1\r\nHost: other.example\r\n\r\n"]
two_in_one = ["http://site.example/echo\r\nx-injected: 1", "http://site.example/echo HTTP/1.1\r\nx-injected: 1\r\n\r\n", "http://site.example/echo?a=%0d%0ax-injected:1",
    "http://site.example\r\n/echo", "http://site.example/echo\n", "http://site.example/echo\0"]

def questions():
    with attempt("policy: a blocked host gets neither request nor question"):
        fits("http://other.example/", ["PermissionDenied"])
        expect("other.example A" not in world.ask("queries"), "its name was asked for")
    for host in blocked_spellings:
        trial(f"policy: http://{host}/ is blocked, too", fits, f"http://{host}/", ("PermissionDenied", "InvalidArguments"))
    with attempt("policy: asks first, and runs once when approved"):
        reply = call("network.http_request", url="http://ask.example/echo")
        refused(reply, "ApprovalPending")
        expect(not world.ask("requests"), "it was requested before")
        request = reply["error"]["context"]["request_id"]
        expect(gate.run("approve", "accept", request, "--reason", "tests").returncode == 0, "it was not accepted")
        answer = gate.ask("GET", f"/v1/approvals/{request}?wait=20")
        expect(len(world.ask("requests")) == 1 and public4 in json.dumps(answer), answer)
    for url in wrong_urls:
        trial("url: " + (url or "empty"), fits, url, ("InvalidArguments", "PermissionDenied"))
    for name in wrong_headers:
        trial(f"header: {name!r} is not for agents", fits, "http://site.example/echo", ("InvalidArguments",), headers={name: "x"})
    for value in wrong_values:
        trial(f"header: the value {value[:24]!r}", fits, "http://site.example/echo", ("InvalidArguments",), headers={"x-a": value})
    with attempt("url: line ends and blanks inject nothing"):
        for url in two_in_one:
            call("network.http_request", url=url)
        for request in world.ask("requests"):
            expect("x-injected" not in request["headers"] and request["host"] == "site.example", request)
    trial("url: a long one", echoes, {"path": "/echo?" + "a" * 8000}, url="http://site.example/echo?" + "a" * 8000)
    trial("url: too long", fits, "http://site.example/" + "a" * 100000, ("InvalidArguments",))
    trial("url: no fragment is sent", echoes, {"path": "/echo?a"}, url="http://site.example/echo?a#secret")
    for method in ["GET", "DELETE", "OPTIONS", "POST", "PUT", "PATCH"]:
        body = {"body": "some"} if method[0] == "P" else {}
        trial("method: " + method, echoes, {"method": method, "body": ""} | body, method=method, **body)
    for method in ["TRACE", "CONNECT", "get", "GET / HTTP/1.1\r\nX: "]:
        trial(f"method: {method[:10]!r} is not for agents", fits, "http://site.example/", ("InvalidArguments",), method=method)
    for url in ["http://site.example/echo", "https://site.example/echo", "http://four.example/echo"]:
        trial("environment: neither proxies nor .netrc, " + url, echoes, {}, absent=["authorization", "proxy-authorization", "proxy-connection", "via"], url=url)

def answers():
    trial("answer: HEAD", gives, "http://site.example/", {"status": 200, "body": "", "bytes": 0}, method="HEAD")
    trial("answer: text", gives, "http://four.example/", {"body": "hello from the world\n", "encoding": "utf8", "bytes": 21, "truncated": False,
          "address": public4, "status": 200, "redirects": 0, "stopped": False, "url": "http://four.example/"})
    with attempt("answer: headers"):
        headers = fetch("http://four.example/")["headers"]
        expect({"content-type": "text/plain", "x-many": "one, two", "content-length": "21"}.items() <= headers.items(), headers)
    trial("answer: from an address of IPv6", lambda: data_of(call("network.download", url=f"http://[{public6}]/", path="six")))
    for host, address in [("six.example", public6), (public4, public4), (f"four.example:{tcp_port}", public4)]:
        trial("answer: from " + host, gives, f"http://{host}/", {"address": address, "status": 200})
    trial("answer: from an alias", gives, "http://alias.example/", {"status": 200, "body": "hello from the world\n"})
    trial("answer: 1 MiB there and back", echoes, {"body": "0123456789abcdef" * 65536}, method="POST", body="0123456789abcdef" * 65536, max_bytes=4 << 20)
    body = base64.b64encode(bytes(range(256))).decode()
    trial("answer: bytes there", echoes, {"body": bytes(range(256)).decode("latin-1")}, method="POST", body=body, encoding="base64")
    trial("answer: bytes back", gives, "http://site.example/binary", {"encoding": "base64", "body": body, "bytes": 256})
    trial("answer: no base64", fits, "http://site.example/", ("InvalidArguments",), method="POST", body="*", encoding="base64")
    for url, limit, count in [("big?bytes=3000000", 1 << 20, 1 << 20), ("endless", 100000, 100000), ("big?bytes=16777217", 16 << 20, 16 << 20), ("big?bytes=1000", 1000, None)]:
        with attempt(f"answer: at most {limit} bytes of {url}"):
            data = fetch("http://site.example/" + url, **({"max_bytes": limit} if count != 1 << 20 else {}))
            expect(data["truncated"] is (count is not None) and data["bytes"] == limit and content(data) == big_content(limit), data["truncated"], data["bytes"])
    with attempt("answer: cut within a letter"):
        data = fetch("http://site.example/umlauts", max_bytes=51)
        expect(data["truncated"] is True and 50 <= data["bytes"] <= 51 and content(data) == ("ä" * 50).encode()[: data["bytes"]], data)
    trial("answer: no more than 16 MiB", fits, "http://site.example/", ("InvalidArguments",), max_bytes=(16 << 20) + 1)
    with attempt("answer: a gzip bomb stays small"):
        put(f"/proc/{gate.process.pid}/clear_refs", "5", None)
        before, data, after = peak_memory(), fetch("http://site.example/gzip"), peak_memory()
        expect(data["bytes"] <= 1 << 20 and after - before < 64 << 20, data["bytes"], after - before)
    for kib in (200, 3000):
        trial(f"answer: {kib} KiB of headers", lambda: refused(call("network.http_request", url=f"http://site.example/headers-bomb?kib={kib}"), None, "IOFailure", "TooLarge"))
    with attempt("answer: two cookies, and none kept"):
        expect(fetch("http://site.example/cookie")["headers"]["set-cookie"] == "a=1; Path=/\nb=2; Path=/")
        echoes({}, absent=["cookie"])
    with attempt("answer: one that breaks off is not taken for whole"):
        reply = call("network.http_request", url="http://site.example/truncated")
        expect(error_of(reply) == "IOFailure" or data_of(reply)["truncated"] is True, reply)
    trial("answer: a range", gives, "http://site.example/range", {"status": 206, "body": "234"}, headers={"Range": "bytes=2-4"})
    trial("answer: in chunks", gives, "http://site.example/chunked", {"status": 200, "body": "hello world"})
    for status in (204, 304, 404, 500):
        trial(f"answer: {status}", gives, f"http://site.example/status?code={status}", {"status": status})
    for url in ["site.example/garbage", "site.example/hangup", "site.example/bad-chunk", f"site.example:{closed_port}/", "site.example:443/", "nowhere.example/"]:
        trial("answer: none from " + url, fits, "http://" + url, ("NotFound",) if "nowhere" in url else ("IOFailure",))
    trial("answer: none to HTTPS on the HTTP port", fits, "https://site.example:80/", ("IOFailure",))
    for url, seconds, *kinds in [("http://site.example/silent", 1, "TimedOut"), ("https://site.example/silent", 1, "TimedOut"), ("http://site.example/slow", 2, "TimedOut"),
        (moved_to("/silent"), 1, "TimedOut"), ("http://absent.example/", 1, "TimedOut", "IOFailure"), ("http://mute.example/", 2, "TimedOut", "IOFailure", "NotFound")]:
        with attempt(f"timeout: {url} in {seconds} s"):
            start = time.monotonic()
            fits(url, kinds, timeout_seconds=seconds)
            expect(time.monotonic() - start < seconds + 6, "it took", time.monotonic() - start)
    for url in ["https://site.example/echo", f"https://{public4}/echo", moved_to("https://www.sub.example/echo")]:
        trial("tls: verifies " + url, echoes, {"tls": True}, url=url)
    for host in ["untrusted.example", "expired.example", "wrong.example"]:
        with attempt(f"tls: {host} does not verify"):
            fits(f"https://{host}/", ("IOFailure",))
            reply = call("network.http_request", url=moved_to(f"https://{host}/"))
            expect(error_of(reply) == "IOFailure" or data_of(reply).get("stopped"), reply)
            expect(not [request for request in world.ask("requests") if request["tls"]], "it was requested")

# ---- attempts: downloads

def tree():
    """Every file of the workspace, with its content's digest."""
    paths = [f"{place}/{name}" for place, folders, files in os.walk(gate.workspace) for name in folders + files]
    return {path: os.readlink(path) if os.path.islink(path) else hashlib.sha256(read(path)).hexdigest() if os.path.isfile(path) else "folder" for path in paths}

def leaves_no_trace(url, kinds, path="kept", **arguments):
    """A download that fails leaves the workspace as it was, with the old file and no other."""
    put(gate.workspace + "/kept", "old")
    before = tree()
    reply = call("network.download", url=url, path=path, **arguments)
    expect(error_of(reply) in kinds if kinds else error_of(reply) not in (None, "InternalError"), "expected", kinds or "an error", "got", json.dumps(reply))
    expect(tree() == before, "the workspace changed:", set(tree().items()) ^ set(before.items()))

def downloads():
    with attempt("download: 20 MiB, byte for byte"):
        whole = big_content(20 << 20)
        data = data_of(call("network.download", url="https://site.example/big?bytes=20971520", path="big.bin"))
        expect(read(gate.workspace + "/big.bin") == whole, "the file differs")
        expect("authorization" not in world.ask("requests")[0]["headers"], "with .netrc")
        expect(data["sha256"] == hashlib.sha256(whole).hexdigest() and data["bytes"] == len(whole) and data["status"] == 200, data)
        expect(data["path"] == "/workspace/tester/big.bin" and data["address"] in (public4, public6) and data["redirects"] == [], data)
    with attempt("download: over a redirect, in place of a file"):
        put(gate.workspace + "/over", "old and longer than what comes in its place")
        data = data_of(call("network.download", url=moved_to("http://www.sub.example/"), path="over"))
        expect(read(gate.workspace + "/over") == b"hello from the world\n" and data["url"] == "http://www.sub.example/" and len(data["redirects"]) == 1, data)
    for name, url, *kinds in [
        ("404", "http://site.example/nothing"), ("breaks off", "http://site.example/truncated", "IOFailure"), ("garbage", "http://site.example/garbage", "IOFailure"),
        ("too large by itself", "http://site.example/big?bytes=2000000000", "TooLarge"), ("a redirect inside", moved_to("http://metadata.example/")),
        ("a redirect to a file", moved_to("file:///etc/passwd")), ("a stranger's certificate", "https://untrusted.example/", "IOFailure"),
        ("a file of this machine", "file:///etc/passwd", "InvalidArguments", "PermissionDenied"), ("no such name", "http://nowhere.example/", "NotFound")]:
        trial("download: " + name, leaves_no_trace, url, kinds)
        trial(f"download: {name}, to a new file", leaves_no_trace, url, kinds, path="new")
    for name, url, kinds, arguments in [("not over a file when not asked to", "http://site.example/", ("AlreadyExists",), {"overwrite": False}),
        ("too large, as announced", "http://site.example/big?bytes=10000000000", ("TooLarge",), {"max_bytes": 100000}),
        ("too large, unannounced", "http://site.example/endless", ("TooLarge",), {"max_bytes": 100000}),
        ("too slow", "http://site.example/slow", ("TimedOut",), {"timeout_seconds": 2}),
        ("a redirect not followed", moved_to("/"), (), {"follow_redirects": False}),
        ("to the workspace itself", "http://site.example/", (), {"path": "."})]:
        trial("download: " + name, leaves_no_trace, url, kinds, **arguments)
    put(gate.workspace + "/deep/.git/HEAD", "ref: refs/heads/main\n")
    for path in [".git/hooks/post-commit", ".git/config", ".bashrc", "deep/.git/hooks/pre-commit", ".github/workflows/ci.yml"]:
        trial("download: to " + path, leaves_no_trace, "http://site.example/", ("PermissionDenied",), path=path)
    for path in ["../escape", "/etc/escape", "./../../escape", "/workspace/other/escape"]:
        trial("download: to " + path, leaves_no_trace, "http://site.example/", ("OutsideWorkspace",), path=path)
    with attempt("download: through links that lead out"):
        os.symlink(gate.home, gate.workspace + "/out")
        os.symlink(gate.home + "/escape", gate.workspace + "/outfile")
        leaves_no_trace("http://site.example/", (), path="out/escape")
        reply = call("network.download", url="http://site.example/", path="outfile")
        expect(not os.path.lexists(gate.home + "/escape"), "it left the workspace", reply)

# ---- attempts: names and ports

lookups = [
    ("site.example", "A", public4), ("SITE.example", "A", public4), ("site.example", "AAAA", public6), ("alias.example", "A", public4), ("alias.example", "CNAME", "site.example"),
    ("post.example", "MX", "10 mail.example", "20 mail2.example"), ("site.example", "TXT", "plain", "".join(long_text)), ("quoted.example", "TXT", 'say "hi" \\ there'),
    ("private.example", "A", private), ("mixed.example", "A", public4, private), ("spoof.example", "A", public4), ("www.sub.example", "A", public4),
    ("wide.example", "TXT", *("%02d" % index + "z" * 250 for index in range(20)))]
no_server = ("IOFailure", "NotFound", "TimedOut", "Unavailable")
failing_lookups = {
    "nowhere.example": ("NotFound",), "site.example\n": ("InvalidArguments", "NotFound"), "a b": ("InvalidArguments", "NotFound"), "a" * 64 + ".example": ("InvalidArguments", "NotFound"),
    "": ("InvalidArguments",), "a..example": ("InvalidArguments", "NotFound"), "servfail.example": no_server, "malformed.example": no_server, "mute.example": no_server,
    "round.example": no_server, "six.example": no_server}

inner_hosts = ["127.0.0.1", "::1", "localhost", metadata, "private.example", "metadata.example", "loop.example", "own.example", "mapped.example", own4, private, "::ffff:10.9.8.7"]
odd_hosts = ["2130706433", "0x7f.1", "127.1", "0", "[::1]", "::127.0.0.1", "site.example:80", "http://site.example/"]

def lookups_and_ports():
    for host, kind, *records in lookups:
        with attempt(f"lookup: {kind} of {host}"):
            found = [record.rstrip(".") if kind in ("CNAME", "MX") else record for record in data_of(call("network.dns_lookup", host=host, type=kind))["records"]]
            expect(sorted(found) == sorted(records), found)
    for host, kinds in failing_lookups.items():
        with attempt(f"lookup: {host[:20]!r} fails"):
            reply = call("network.dns_lookup", host=host)
            if reply.get("data") != {"records": []} or kinds is not no_server:
                refused(reply, *kinds)
    for host, port, is_open in [("four.example", tcp_port, True), (public4, closed_port, False), (public6, 443, True), ("absent.example", 80, False)]:
        with attempt(f"port: {port} of {host}"):
            data = data_of(call("network.port_check", host=host, port=port))
            expect(data["open"] is is_open and data["address"] in public and 0 <= data["latency_ms"] < 6000, data)
    for host, port, *kinds in [("nowhere.example", 80, "NotFound"), ("site.example", 0, "InvalidArguments"), *((host, 80, *odd) for host in odd_hosts),
                               *((host, port, "AddressRefused") for host in inner_hosts for port in (80, 7700))]:
        with attempt(f"port: {port} of {host} is refused"):
            refused(call("network.port_check", host=host, port=port), *kinds)

# ---- attempts: processes in the box

unlisted = ["other.example", "sub.example", "site.example:8080", "site.example:22", f"site.example:{closed_port}", public4, "nowhere.example", "127.0.0.1:7700", "localhost:7800",
    "[::1]:7700", "www.sub.example:9000", "xsub.example", "site.example.evil.example", metadata, own4]
listed_but_inside = ["metadata.example", "loop.example", "private.example", "mapped.example", "own.example"]
two_meanings = ["GET http://site.example@other.example/ HTTP/1.1", "GET http://other.example#@site.example/ HTTP/1.1", "GET / HTTP/1.1", "CONNECT other.example:80 HTTP/1.1",
    "CONNECT site.example:443@other.example:80 HTTP/1.1", "CONNECT site.example HTTP/1.1", "CONNECT 0x7f.1:7700 HTTP/1.1", "GET ftp://site.example/ HTTP/1.1",
    "CONNECT other.example\\0.sub.example:80 HTTP/1.1", "CONNECT [::ffff:10.9.8.7]:80 HTTP/1.1", "GET http://OTHER.EXAMPLE./ HTTP/1.1", "x" * 100000]
# A shell's text would be judged command by command, so loops are written in Python.
speaks = r"""
import socket, sys
for text in sys.argv[1:]:
    s = socket.create_connection(("127.0.0.1", 3128)); s.settimeout(3)
    try:
        s.sendall(text.encode().decode("unicode_escape").encode("latin-1") + b"\r\nHost: other.example\r\n\r\n")
        while data := s.recv(65536): print(data.decode("latin-1"))
    except OSError as error: print(error)
    s.close()
"""
digests = "import hashlib, subprocess; print(hashlib.sha256(subprocess.run(['curl', '-sS', 'https://site.example/big?bytes=5242880'], stdout=-1).stdout).hexdigest())"
repeats = "import subprocess, sys\nfor _ in range(10): subprocess.run(['curl', '-s', '--max-time', '5', '-o', '/dev/null', '-w', '%{http_code}/%{http_connect} ', sys.argv[1]])"
offline = "import os, subprocess; print(dict(os.environ)); subprocess.run(['curl', 'http://site.example/']); subprocess.run(['curl', '-x', 'http://127.0.0.1:3128', 'http://site.example/'])"

def box(command, *args, **more):
    return data_of(call("process.run", command=command, args=list(args), **more))

def curl(*words):
    """What curl in the box got, its status and the proxy's, and the outcome."""
    outcome = box("curl", "-sS", "--max-time", "15", "-w", "\n%{http_code} %{http_connect}", *words)
    body, _, statuses = outcome["stdout"].rpartition("\n")
    return body, (statuses.split() + ["none", "none"])[:2], outcome

def connections(outcome, url, allowed):
    host = urllib.parse.urlsplit(url).hostname
    found = [entry for entry in outcome.get("connections", []) if entry["host"].strip("[]") == host and entry["allowed"] is allowed]
    expect(found and (allowed or all(entry.get("reason") for entry in found)), f"no connection to {host}, allowed {allowed}, or no reason:", outcome.get("connections"))
    return found[0]

def boxes():
    with attempt("box: where its proxy is"):
        variables = json.loads(box("python3", "-c", "import json, os; print(json.dumps(dict(os.environ)))")["stdout"])
        expect(all(variables.get(name) == "http://127.0.0.1:3128" for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")), variables)
    for url, port, *words in [("http://site.example/", 80), ("https://site.example/", 443), ("https://www.sub.example/", 443),
                              (f"http://site.example:{tcp_port}/", tcp_port), (f"http://site.example:{tcp_port}/", tcp_port, "-p")]:
        with attempt(f"box: reaches {url} {' '.join(words)}"):
            body, statuses, outcome = curl(url, *words)
            expect(body == "hello from the world\n" and statuses[0] == "200", body, statuses, outcome["stderr"])
            entry = connections(outcome, url, True)
            expect(entry["port"] == port and entry["sent_bytes"] > 0 and entry["received_bytes"] > 21, entry)
    with attempt("box: 5 MiB through the proxy, and counted"):
        outcome = box("python3", "-c", digests)
        expect(outcome["stdout"].strip() == hashlib.sha256(big_content(5 << 20)).hexdigest(), outcome)
        expect(connections(outcome, "https://site.example/", True)["received_bytes"] > 5 << 20, outcome)
    for host in unlisted + listed_but_inside:
        with attempt(f"box: not {host}"):
            answers = ("403",) if host in unlisted else ("403", "502")
            _, statuses, outcome = curl(f"http://{host}/")
            expect(statuses[0] in answers, "plain:", statuses, outcome["stderr"])
            connections(outcome, f"http://{host}/", False)
            _, statuses, outcome = curl(f"https://{host}/")
            expect(statuses[1] in answers, "tunnel:", statuses, outcome["stderr"])
    for words in [("--noproxy", "*", "http://site.example/"), ("--noproxy", "*", f"http://{public4}/"), ("--noproxy", "*", f"http://[{public6}]/"),
                  ("--noproxy", "*", "http://127.0.0.1:7700/health"), ("-x", f"http://127.0.0.1:{trap_port}", "http://site.example/"), ("https://untrusted.sub.example/",)]:
        with attempt("box: not curl " + " ".join(words)):
            expect(curl(*words)[2]["exit_code"] != 0, "it got through")
    with attempt("box: no questions to name servers"):
        code = f"import socket; s = socket.socket(2, 2); s.settimeout(2); s.sendto(b'x' * 40, ('{resolver}', 53)); s.recv(10)"
        expect(box("python3", "-c", code)["exit_code"] != 0 and not world.ask("dials"), world.ask("dials"))
    with attempt("box: a second request on a connection is decided, too"):
        outcome = box("python3", "-c", speaks, r"GET http://site.example/ HTTP/1.1\r\nHost: site.example\r\n\r\nGET http://other.example/ HTTP/1.1")
        expect("hello from the world" in outcome["stdout"], outcome)
        expect([request["host"] for request in world.ask("requests")] == ["site.example"], world.ask("requests"))
    for line in two_meanings:
        with attempt("box: " + line[:60]):
            outcome = box("python3", "-c", speaks, line)
            expect(outcome["exit_code"] == 0 and "hello" not in outcome["stdout"] and not re.search(r"^HTTP/1.\d 200", outcome["stdout"]), outcome)
            expect(all(request["host"] != "other.example" for request in world.ask("requests")), world.ask("requests"))
    for name in ("rebind.example", "flip.example", "mixed.example"):
        for scheme, field in (("http", 0), ("https", 1)):
            with attempt(f"box: {name} over {scheme}, 20 times"):
                for _ in range(2):
                    world.ask("reset", name)
                    outcome = box("python3", "-c", repeats, f"{scheme}://{name}/")
                    statuses = [pair.split("/")[field] for pair in outcome["stdout"].split()]
                    expect(len(statuses) == 10 and set(statuses) <= {"200", "403", "502"}, outcome)
    with attempt("box: a private address where the rule allows it", may=[private]):
        body, statuses, outcome = curl("-Ainside", "http://private.example/")
        expect(statuses[0] == "200" and body == "hello from the world\n", statuses, outcome)
        for host in ["site.example", private, "narrow.example"]:
            expect(curl("-Ainside", f"http://{host}/")[1][0] in ("403", "502"), host)
    with attempt("box: without hosts there is neither network nor proxy"):
        outcome = box("python3", "-c", offline, "-Aoffline")
        expect("proxy" not in outcome["stdout"].lower() and "hello" not in outcome["stdout"] and not outcome.get("connections"), outcome)

# ---- the run

def run_groups():
    for group in [addresses, redirects, questions, answers, downloads, lookups_and_ports, boxes]:
        if re.search(os.environ.get("ONLY", ""), group.__name__):
            group()
    gate.stop()
    verified = gate.run("audit", "verify")
    counted[verified.returncode != 0] += 1
    print(f"FAIL record: verifies: {verified.stdout} {verified.stderr}" if verified.returncode else "ok record: verifies")
    print(f"{counted.total()} attempts, {counted[True]} failed")
    return 1 if counted[True] else 0

signal.pthread_sigmask(signal.SIG_SETMASK, [])
signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
os.umask(0o022)
os.makedirs(folder, exist_ok=True)
scratch = tempfile.mkdtemp(prefix="n", dir=folder)
os.chmod(scratch, 0o755)
world, gate, code = None, None, 1
try:
    world = World(certificates(scratch + "/tls"))
    must(libc.unshare(NEWNET | NEWNS))
    must(libc.mount(b"none", b"/", None, REC | PRIVATE, None))
    ip("link", "add", "g0", "type", "veth", "peer", "name", "w0", "netns", str(world.process))
    for line in ["link set lo up", f"addr add {own4}/24 dev g0", f"addr add {own6}/64 dev g0 nodad", "link set g0 up", "route add default dev g0", "-6 route add default dev g0"]:
        ip(*line.split())
    put(scratch + "/etc/resolv.conf", f"nameserver {resolver}\noptions timeout:2 attempts:2\n")
    put(scratch + "/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n")
    put(scratch + "/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\nservices: files\n")
    put(scratch + "/etc/ssl/certs/ca-certificates.crt", read(scratch + "/tls/trusted.crt").decode())
    for path in ("/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/ssl/certs/ca-certificates.crt"):
        must(libc.mount((scratch + path).encode(), path.encode(), None, BIND, None))
    expect(world.ask("begin") is not None, "the world did not begin")
    own = Watch("lo")
    # Whoever takes this machine for part of the network is answered here.
    traps = [Server(port, trap=True) for port in (80, trap_port)]
    gate = Gate(scratch)
    code = run_groups()
except (Wrong, subprocess.CalledProcessError) as error:
    print("FAIL set-up:", error, getattr(error, "stderr", ""))
finally:
    for part in filter(None, (gate, world)):
        part.stop()
    shutil.rmtree(scratch, ignore_errors=True)
sys.exit(code)
