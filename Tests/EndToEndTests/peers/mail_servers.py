"""Two real mail servers on loopback ports: dovecot for IMAP and exim for submission, both from Debian packages
(dovecot-imapd, exim4-daemon-light), with configurations and states of their own below a folder.

usage: mail_servers.py FOLDER [--user NAME:PASSWORD]

Prints one line of JSON with the ports when both answer. Serves until its standard input is closed (so it must be given
one: a pipe), its parent ends, or it gets SIGTERM or SIGINT; it exits with 0 then, and nothing of it is left running. It
exits with 77 if a package is missing. Logs are FOLDER/dovecot.log, FOLDER/exim.log and
FOLDER/state/exim/*.log.

The user is the same for both servers, and mail for anybody @mail.example becomes the user's, except for
refused@mail.example, who is refused with 550. A message above 1 MiB is refused with 552, mail for other domains with 550,
a login before TLS by both servers. A folder that has been served from before keeps its mail, and gets no messages again.

As root the servers run as the user `mail`, who must be able to enter FOLDER; else as whoever runs this, which works too.
"""

import asyncio
import base64
import ctypes
import grp
import hashlib
import imaplib
import json
import os
import pwd
import shutil
import signal
import smtplib
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time

# Whoever starts this may have another; the servers run as another user.
os.umask(0o022)

DOVECOT, EXIM = "/usr/sbin/dovecot", "/usr/sbin/exim4"
LIMIT = 1 << 20
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36

libc = ctypes.CDLL(None, use_errno=True)


def dies_with_parent():
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


# Messages

PLAIN = b"""\
From: Alice Example <alice@mail.example>
To: Agent <agent@mail.example>
Subject: Lunch on Friday
Date: Mon, 02 Jun 2025 10:15:00 +0200
Message-ID: <plain.1@mail.example>
MIME-Version: 1.0
Content-Type: text/plain; charset=us-ascii

Hello,

shall we meet at noon on Friday?

Alice
"""

ALTERNATIVE = """\
From: =?UTF-8?Q?J=C3=B6rg_M=C3=BCller?= <joerg@mail.example>
To: Agent <agent@mail.example>
Subject: =?UTF-8?B?R3LDvMOfZSBhdXMgTcO8bmNoZW4g4oCT?=
 =?UTF-8?Q?_sch=C3=B6nes_Wochenende!?=
Date: Tue, 03 Jun 2025 11:30:00 +0200
Message-ID: <alternative.2@mail.example>
MIME-Version: 1.0
Content-Type: multipart/alternative; boundary="alternative=_2"

--alternative=_2
Content-Type: text/plain; charset=UTF-8
Content-Transfer-Encoding: quoted-printable

Sch=C3=B6ne Gr=C3=BC=C3=9Fe aus M=C3=BCnchen! Diese Zeile ist so lang, dass=
 sie weich umbrochen wird: 10 =E2=82=AC =3D viel.

--alternative=_2
Content-Type: text/html; charset=UTF-8
Content-Transfer-Encoding: quoted-printable

<html><body><p>Sch=C3=B6ne <b>Gr=C3=BC=C3=9Fe</b> aus M=C3=BCnchen!</p><scr=
ipt>alert(1)</script><img src=3D"http://tracker.invalid/pixel.gif"></body></html>

--alternative=_2--
""".encode()

DOCUMENT = b"%PDF-1.4\n" + bytes(range(256)) * 8 + b"\n%%EOF\n"

MIXED = """\
From: "Reports, Inc." <reports@mail.example>
To: Agent <agent@mail.example>
Cc: =?ISO-8859-1?Q?Bj=F6rn?= <bjoern@mail.example>
Subject: =?ISO-8859-1?Q?=DCbersicht_f=FCr_Mai?=
Date: Wed, 04 Jun 2025 09:00:00 +0000
Message-ID: <mixed.3@mail.example>
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary=mixed_3

--mixed_3
Content-Type: text/plain; charset=ISO-8859-1
Content-Transfer-Encoding: 8bit

Die Übersicht für Mai liegt bei. Grüße!

--mixed_3
Content-Type: application/pdf
Content-Transfer-Encoding: base64
Content-Disposition: attachment; filename*=UTF-8''%C3%9Cbersicht.pdf

""".encode("latin-1") + base64.encodebytes(DOCUMENT) + b"\n--mixed_3--\n"


def hostile():
    head = (
        b"From: " + b"x" * 5000 + b" <hostile@mail.example>\n"
        b"To: Agent <agent@mail.example>\n"
        b"Subject: =?x-no-such-charset?Q?=FF=FE?= =?UTF-8?B?broken*base64?= =?UTF-8?Q?cut_off=C3 " + b"long " * 4000 + b"\n"
        b"Date: Thu, 99 Foo 2025 99:99:99 +9999\n"
        b"Message-ID: <hostile.4@mail.example>\n"
        b"X-Long: " + b"y" * 100_000 + b"\n"
        b"X-Raw: \xff\xfe\x80 \x1b[31mred\x1b[0m \x07\n"
        b"MIME-Version: 1.0\n")
    body = (
        b"Content-Type: multipart/mixed; boundary=last\n\n"
        b"--last\nContent-Type: text/plain; charset=\"x-no-such-charset\"\nContent-Transfer-Encoding: 8bit\n\nraw \xff\xfe\xc3\x28 \x1b]0;title\x07\n"
        b"--last\nContent-Type: text/plain; charset=UTF-8\nContent-Transfer-Encoding: base64\n\n"
        b"VGhpcyBpcyBicm9rZW4=!!! ***\nQQ=Q\n"
        b"--last\nContent-Type: application/octet-stream; name=\"../../../etc/passwd\"\nContent-Transfer-Encoding: x-unknown\n"
        b"Content-Disposition: attachment; filename*0*=nowhere'xx'%FF%ZZ..%2F; filename*2=gap; filename=\"/etc/\\\"cron.d/x\"\n\n=ZZ\n")  # never closed
    for depth in range(20):
        body = b"Content-Type: multipart/mixed; boundary=\"level%d\"\n\n--level%d\n" % (depth, depth) + body + b"\n--level%d--\n" % depth
    return head + body


MESSAGES = [
    (r"(\Seen)", 1748852100, PLAIN), (None, 1748943000, ALTERNATIVE), (None, 1749027600, MIXED), (None, 1749114000, hostile())]


# Configurations

def write(path, text, mode=0o600):
    with open(path, "w", opener=lambda name, flags: os.open(name, flags, mode)) as file:
        file.write(text)


def certificates(folder):
    """An authority and a certificate by it. What is there from before stays."""
    if all(os.path.exists(f"{folder}/{name}.pem") for name in ("ca", "cert", "key")):
        return

    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    write(f"{folder}/openssl.cnf", """\
[req]
distinguished_name = name
[name]
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature, keyEncipherment
extendedKeyUsage = serverAuth
subjectAltName = DNS:localhost, DNS:mail.example, IP:127.0.0.1
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
""")
    new = ["-config", "openssl.cnf", "-newkey", "rsa:2048", "-nodes"]
    openssl("req", *new, "-x509", "-days", "30", "-subj", "/CN=Tests of mail", "-extensions", "authority", "-keyout", "ca.key", "-out", "ca.pem")
    openssl("req", *new, "-subj", "/CN=localhost", "-keyout", "key.pem", "-out", "cert.csr")
    openssl("x509", "-req", "-in", "cert.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-set_serial", str(time.time_ns()), "-days", "30",
            "-extfile", "openssl.cnf", "-extensions", "server", "-out", "cert.pem")
    for name in ("ca.key", "cert.csr", "openssl.cnf"):
        os.remove(f"{folder}/{name}")
    os.chmod(f"{folder}/ca.pem", 0o644)


def dovecot_configuration(folder, run, ports, account):
    state = f"{folder}/state"
    salt = os.urandom(8)
    secret = base64.b64encode(hashlib.sha256(password.encode() + salt).digest() + salt).decode()
    write(f"{state}/users", f"{user}:{{SSHA256}}{secret}\n")
    rootless = "\n".join(f"service {name} {{\n  chroot =\n}}" for name in ("aggregator", "director", "imap-login", "imap-urlauth-login", "ipc", "old-stats"))
    write(f"{state}/dovecot.conf", f"""\
base_dir = {run}
state_dir = {state}/dovecot
log_path = {folder}/dovecot.log
protocols = imap
default_internal_user = {account.pw_name}
default_internal_group = {grp.getgrgid(account.pw_gid).gr_name}
default_login_user = {account.pw_name}
first_valid_uid = {account.pw_uid}
last_valid_uid = {account.pw_uid}
first_valid_gid = {account.pw_gid}

ssl = required
ssl_cert = <{folder}/cert.pem
ssl_key = <{folder}/key.pem

auth_mechanisms = plain login
auth_username_chars =
auth_username_format = %u
auth_failure_delay = 0
passdb {{
  driver = passwd-file
  args = username_format=%u {state}/users
}}
userdb {{
  driver = static
  args = uid={account.pw_uid} gid={account.pw_gid} home={state}/home
}}

mail_location = maildir:{folder}/Maildir
mail_max_userip_connections = 100
mailbox_list_index = yes
namespace inbox {{
  inbox = yes
  separator = /
  mailbox Drafts {{
    auto = subscribe
    special_use = \\Drafts
  }}
  mailbox Sent {{
    auto = subscribe
    special_use = \\Sent
  }}
  mailbox Trash {{
    auto = subscribe
    special_use = \\Trash
  }}
  mailbox Archive {{
    auto = subscribe
    special_use = \\Archive
  }}
  mailbox Entwürfe {{
    auto = subscribe
  }}
}}

{rootless}
service imap-login {{
  inet_listener imap {{
    address = 127.0.0.1
    port = {ports["behind"]}
  }}
  inet_listener imaps {{
    address = 127.0.0.1
    port = {ports["imaps"]}
    ssl = yes
  }}
}}
service anvil {{
  chroot =
  # Logins that failed make no later one wait.
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
""")


def exim_configuration(folder, ports, account):
    def known(name, value):
        return f"{{eq{{${{base64:{name}}}}}{{{base64.b64encode(value.encode()).decode()}}}}}"

    def login(name, secret):
        return f"server_condition = ${{if and{{{known(name, user)}{known(secret, password)}}}}}\n  server_set_id = {name}"

    state = f"{folder}/state"
    write(f"{state}/exim.conf", f"""\
exim_path = {state}/exim4
exim_user = {account.pw_uid}
exim_group = {account.pw_gid}
unknown_login = {account.pw_name}
spool_directory = {state}/exim
log_file_path = {state}/exim/%s.log
pid_file_path = {state}/exim.pid
# As whoever it runs anyway: it needs no root, and does not start itself anew.
deliver_drop_privilege = true
keep_environment =
check_spool_space = 0
check_log_space = 0

primary_hostname = mail.example
qualify_domain = mail.example
disable_ipv6 = true
local_interfaces = 127.0.0.1
daemon_smtp_ports = {ports["smtps"]} : {ports["submission"]}
tls_on_connect_ports = {ports["smtps"]}
tls_certificate = {folder}/cert.pem
tls_privatekey = {folder}/key.pem
tls_advertise_hosts = *
auth_advertise_hosts = ${{if eq{{$tls_in_cipher}}{{}}{{}}{{*}}}}
host_lookup =
rfc1413_hosts =
smtp_accept_max = 100
smtp_receive_timeout = 60s
message_size_limit = {LIMIT}
acl_smtp_mail = sender
acl_smtp_rcpt = recipient
acl_smtp_data = accept

begin acl

sender:
  deny
    message = 530 5.7.0 Must issue a STARTTLS command first
    !encrypted = *
  deny
    message = 530 5.7.0 Authentication required
    !authenticated = *
  accept

recipient:
  deny
    message = 550 5.1.1 <$local_part@$domain>: no such user
    condition = ${{if eqi{{$local_part@$domain}}{{refused@mail.example}}}}
  deny
    message = 550 5.7.1 <$local_part@$domain>: relaying is not permitted
    !domains = mail.example
  accept

begin routers

everybody:
  driver = accept
  domains = mail.example
  transport = inbox

nobody:
  driver = redirect
  data = :fail: nothing leaves this machine
  allow_fail

begin transports

inbox:
  driver = appendfile
  maildir_format
  directory = {folder}/Maildir
  user = {account.pw_uid}
  group = {account.pw_gid}
  create_directory = false
  delivery_date_add
  envelope_to_add
  return_path_add
  no_mode_fail_narrower

begin authenticators

plain:
  driver = plaintext
  public_name = PLAIN
  server_prompts = :
  {login("$auth2", "$auth3")}

login:
  driver = plaintext
  public_name = LOGIN
  server_prompts = <| Username: | Password:
  {login("$auth1", "$auth2")}
""")


# Processes

def below(ancestor):
    """What runs below a process."""
    parents = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                parents[int(name)] = int(file.read().rpartition(b")")[2].split()[1])
        except (OSError, IndexError):
            pass
    found, more = set(), {ancestor}
    while more:
        more = {process for process, parent in parents.items() if parent in more} - found
        found |= more
    return found


def reap(servers):
    """Takes note of what ended, which includes what the servers left behind. True if no child is left."""
    try:
        while True:
            process, status = os.waitpid(-1, os.WNOHANG)
            if not process:
                return False
            for server in servers:
                if server.pid == process:
                    server.returncode = os.waitstatus_to_exitcode(status)
    except ChildProcessError:
        return True


def stop(servers):
    for server in servers:
        if server.returncode is None:
            os.kill(server.pid, signal.SIGTERM)
    ended, deadline = None, time.monotonic() + 3
    while not reap(servers) and time.monotonic() < deadline:
        if ended is None and all(server.returncode is not None for server in servers):
            ended = time.monotonic()
            deadline = min(deadline, ended + 0.5)  # for what still delivers
        time.sleep(0.02)
    while not reap(servers):
        for process in below(os.getpid()):
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.02)


def free_ports(names):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in names]
    ports = {name: one.getsockname()[1] for name, one in zip(names, sockets)}
    for one in sockets:
        one.close()
    return ports


def imap(folder, port):
    connection = imaplib.IMAP4_SSL("localhost", port, ssl_context=ssl.create_default_context(cafile=f"{folder}/ca.pem"), timeout=20)
    connection.authenticate("PLAIN", lambda _: f"\0{user}\0{password}".encode())
    return connection


def answering(folder, ports, servers):
    """Whether both servers came to answer."""
    def both():
        imap(folder, ports["imaps"]).logout()
        socket.create_connection(("127.0.0.1", ports["behind"]), 5).close()
        context = ssl.create_default_context(cafile=f"{folder}/ca.pem")
        smtplib.SMTP_SSL("localhost", ports["smtps"], "localhost", context=context, timeout=20).quit()
        smtplib.SMTP("localhost", ports["submission"], "localhost", timeout=20).quit()

    problem = None
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        reap(servers)
        if any(server.returncode is not None for server in servers):
            problem = f"{' and '.join(server.args[0] for server in servers if server.returncode is not None)} ended"
            break
        try:
            both()
            return True
        except (OSError, imaplib.IMAP4.error, smtplib.SMTPException) as error:
            problem = error
            time.sleep(0.05)
    print(f"mail_servers.py: {problem}; see {folder}/dovecot.log and {folder}/exim.log", file=sys.stderr)
    return False


def become(account):
    """What makes a subprocess that user's. What it is to do when its parent dies is said after that, which would forget it."""
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []} if os.getuid() == 0 else {}


def give(folder, run, account):
    """Makes that user the owner of what the servers read and write."""
    if os.getuid() == 0:
        own = [run, *(f"{folder}/{name}" for name in ("ca.pem", "cert.pem", "key.pem", "dovecot.log", "exim.log"))]
        for top in ("state", "Maildir"):
            for path, _, names in os.walk(f"{folder}/{top}"):
                own += [path, *(f"{path}/{name}" for name in names)]
        for path in own:
            os.chown(path, account.pw_uid, account.pw_gid, follow_symlinks=False)


def start(folder, run, ports, account):
    dovecot_configuration(folder, run, ports, account)
    exim_configuration(folder, ports, account)
    give(folder, run, account)

    def run_logged(name, *command):
        with open(f"{folder}/{name}.log", "ab") as log:
            return subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=dies_with_parent, **become(account),
                                    env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": f"{folder}/state/home", "LC_ALL": "C.UTF-8"})

    return [run_logged("dovecot", DOVECOT, "-F", "-c", f"{folder}/state/dovecot.conf"),
            run_logged("exim", f"{folder}/state/exim4", "-C", f"{folder}/state/exim.conf", "-bdf", "-q5s")]


def fill(folder, port):
    connection = imap(folder, port)
    for flags, seconds, message in MESSAGES:
        answer, data = connection.append("INBOX", flags, imaplib.Time2Internaldate(seconds), message)
        if answer != "OK":
            raise SystemExit(f"mail_servers.py: {data}")
    connection.logout()


async def serve(ports, servers, ready):
    """Until told to end. Dovecot takes whoever comes from its own address for secure and would let them log in without
    TLS, so that what comes without TLS is passed on to it from another address."""
    end = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end.set)

    async def copy(reader, writer):
        try:
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
            writer.write_eof()
        except OSError:
            writer.close()

    async def forward(reader, writer):
        try:
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", ports["behind"], local_addr=("127.0.0.2", 0))
        except OSError:
            writer.close()
            return
        await asyncio.gather(copy(reader, inner_writer), copy(inner_reader, writer))
        inner_writer.close()
        writer.close()

    def input_closed():
        try:
            while os.read(0, 1 << 12):
                pass
        except OSError:
            pass
        loop.call_soon_threadsafe(end.set)

    async with await asyncio.start_server(forward, "127.0.0.1", 0) as server:
        ports["imap"] = server.sockets[0].getsockname()[1]
        ready()
        threading.Thread(target=input_closed, daemon=True).start()
        while not end.is_set():
            reap(servers)
            if any(one.returncode is not None for one in servers):
                print("mail_servers.py: a server ended", file=sys.stderr)
                return 1
            try:
                await asyncio.wait_for(end.wait(), 0.5)
            except TimeoutError:
                pass
        return 0


def keep(folder, run, account):
    """Runs the servers, as the parent of whatever they leave behind."""
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    shutil.copyfile(EXIM, f"{folder}/state/exim4")  # without the setuid bit: else root's, and it would outlive this
    os.chmod(f"{folder}/state/exim4", 0o700)
    for name in ("dovecot", "exim", "home"):
        os.makedirs(f"{folder}/state/{name}", mode=0o700, exist_ok=True)
    give(folder, run, account)
    if subprocess.run(["/usr/bin/test", "-w", f"{folder}/state"], **become(account)).returncode:
        raise SystemExit(f"mail_servers.py: the user {account.pw_name} must be able to enter {folder}")
    new = not os.path.exists(f"{folder}/Maildir/cur")
    for name in ("cur", "new", "tmp"):
        os.makedirs(f"{folder}/Maildir/{name}", mode=0o700, exist_ok=True)
    servers = []
    try:
        for _ in range(3):  # somebody else may have taken a port
            ports = free_ports(["imaps", "behind", "smtps", "submission"])
            servers = start(folder, run, ports, account)
            if answering(folder, ports, servers):
                break
            stop(servers)
        else:
            return 1
        if new:
            fill(folder, ports["imaps"])

        def ready():
            print(json.dumps({
                "imaps": ports["imaps"], "imap": ports["imap"], "smtps": ports["smtps"], "submission": ports["submission"],
                "ca": f"{folder}/ca.pem", "user": user, "password": password, "maildir": f"{folder}/Maildir"}), flush=True)

        return asyncio.run(serve(ports, servers, ready))
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        stop(servers)
        shutil.rmtree(run, ignore_errors=True)


def leave(*_):
    raise SystemExit(0)


def main(folder):
    for program, package in ((DOVECOT, "dovecot-imapd"), (EXIM, "exim4-daemon-light"), ("/usr/bin/openssl", "openssl")):
        if not os.path.exists(program):
            print(f"SKIP: needs {program} ({package})")
            return 77
    parent = os.getppid()
    account = pwd.getpwnam("mail") if os.getuid() == 0 else pwd.getpwuid(os.getuid())
    os.makedirs(f"{folder}/Maildir", mode=0o700, exist_ok=True)
    os.makedirs(f"{folder}/state", mode=0o700, exist_ok=True)
    certificates(folder)
    for name in ("dovecot.log", "exim.log"):
        open(f"{folder}/{name}", "a").close()
    run = tempfile.mkdtemp(prefix="mail-", dir="/tmp")  # short enough for the names of sockets
    os.chmod(run, 0o755)

    waited = {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD}
    signal.pthread_sigmask(signal.SIG_BLOCK, waited)
    main_process = os.getpid()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, leave)
            os.umask(0o077)
            dies_with_parent()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, waited)
            if os.getppid() != main_process:
                return
            code = keep(folder, run, account)
        except SystemExit as exit:
            if isinstance(exit.code, str):
                print(exit.code, file=sys.stderr)
            else:
                code = exit.code
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stdout.flush()
            os._exit(code)

    while True:
        signalled = signal.sigtimedwait(waited, 0.5)
        process, status = os.waitpid(child, os.WNOHANG)
        if process:
            shutil.rmtree(run, ignore_errors=True)
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 1
        if os.getppid() != parent or signalled and signalled.si_signo != signal.SIGCHLD:
            os.kill(child, signal.SIGTERM)


arguments = sys.argv[1:]
login = "agent@mail.example:correct-horse-battery"
if len(arguments) == 3 and arguments[1] == "--user":
    login = arguments[2]
elif len(arguments) != 1:
    raise SystemExit(__doc__)
user, _, password = login.partition(":")
if not user or not password or not all(map(str.isprintable, login)) or " " in user:
    raise SystemExit("mail_servers.py: --user NAME:PASSWORD")
sys.exit(main(os.path.abspath(arguments[0])))
