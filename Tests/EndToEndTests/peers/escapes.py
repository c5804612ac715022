"""Attempts to leave the box that agents' processes are put into: none succeeds, and each layer that is said to stop one
stops it alone.

usage: escapes.py KRUXOS FOLDER [USER]

Each attempt is run with every layer, where it must fail; with every layer left out that is said to stop it, where it must
succeed, so that it is known to try; and with each of those layers alone. What is held by something that cannot be left
out is run unconfined instead, where that does no harm.

FOLDER, which everybody must be able to enter and which is not below /usr, /opt, /etc or /proc, gets a folder that is gone
afterwards: it stands for the machine. As root, a third argument names the ordinary user to be instead. Attempts that this
machine's kernel does not know, or that only root's processes could make, are left out and named. ONLY in the environment,
a regular expression, chooses among the attempts.
"""

import concurrent.futures.thread
import ctypes
import fcntl
import glob
import json
import os
import platform
import pty
import pwd
import re
import resource
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
import traceback

kruxos, folder = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
python = "/usr/bin/python3"
agents_user = 500777
marker = "krux" + os.urandom(12).hex()
token = marker[:16]
machine = platform.machine()
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long

# System calls by number: x86_64, then arm64; one number where they agree.
numbers = {
    "acct": (163, 89), "add_key": (248, 217), "adjtimex": (159, 171), "bpf": (321, 280), "capget": (125, 90), "capset": (126, 91),
    "chroot": (161, 51), "clock_adjtime": (305, 266), "clock_settime": (227, 112), "clone": (56, 220), "clone3": 435, "delete_module": (176, 106),
    "fanotify_init": (300, 262), "finit_module": (313, 273), "fsopen": 430, "fspick": 433, "init_module": (175, 105), "io_setup": (206, 0),
    "io_uring_setup": 425, "ioctl": (16, 29), "ioperm": (173, None), "iopl": (172, None), "ioprio_set": (251, 30), "kcmp": (312, 272),
    "kexec_load": (246, 104), "keyctl": (250, 219), "listmount": 458, "memfd_secret": 447, "modify_ldt": (154, None),
    "mount": (165, 40), "mount_setattr": 442, "move_mount": 429, "move_pages": (279, 239), "mq_open": (240, 180), "mq_unlink": (241, 181),
    "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265), "open_tree": 428, "perf_event_open": (298, 241), "personality": (135, 92),
    "pidfd_getfd": 438, "pivot_root": (155, 41), "prctl": (157, 167), 
    "process_madvise": 440, "process_mrelease": 448, "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "ptrace": (101, 117),
    "quotactl": (179, 60), "quotactl_fd": 443, "reboot": (169, 142), "renameat2": (316, 276), "request_key": (249, 218),
    "rt_sigqueueinfo": (129, 138), "setdomainname": (171, 162), "sethostname": (170, 161), "setns": (308, 268),
    "settimeofday": (164, 170), "shmat": (30, 196), "shmctl": (31, 195), "shmget": (29, 194), "msgctl": (71, 187), "msgget": (68, 186),
    "semctl": (66, 191), "semget": (64, 190), "socket": (41, 198), "statmount": 457, "swapoff": (168, 225), "swapon": (167, 224),
    "sysfs": (139, None), "syslog": (103, 116), "tgkill": (234, 131), "tkill": (200, 130), "umount2": (166, 39), "unshare": (272, 97),
    "userfaultfd": (323, 282), "vhangup": (153, 58),
}
numbers = {name: number if isinstance(number, int) else number[machine == "aarch64"] for name, number in numbers.items()}

# What every attempt can use. It runs inside.
prelude = r'''
import array, ctypes, errno, fcntl, glob, json, mmap, os, resource, select, signal, socket, stat, struct, subprocess, sys, termios, threading, time
numbers, host = json.loads(sys.argv[1]), json.loads(sys.argv[2])
marker = host["marker"]
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET, NEWTIME = 0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000, 0x80

def escaped(truth=True):
    if truth:
        print("ESCAPED", flush=True)

def plain(value):
    return ctypes.c_long(value) if isinstance(value, int) else value

def call(name, *arguments):
    """The result of a system call, and its error."""
    number = numbers.get(name, name)
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *map(plain, arguments))
    error = ctypes.get_errno() if result < 0 else 0
    print(name, result, errno.errorcode.get(error, ""), flush=True)
    return result, error

def must(name, *arguments):
    result, error = call(name, *arguments)
    if result < 0:
        raise OSError(error, os.strerror(error), name)
    return result

def works(name, *arguments):
    escaped(call(name, *arguments)[0] >= 0)

def let_through(name, *arguments):
    """Whether the call was refused for what it asks, not for who asks."""
    result, error = call(name, *arguments)
    escaped(result >= 0 or error not in (errno.EPERM, errno.EACCES, errno.ENOSYS))

def reads(path):
    with open(path, "rb") as file:
        escaped(marker.encode() in file.read())

def opens(path, flags=os.O_RDONLY):
    os.close(os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY))
    escaped()

def leaves_nothing_in(path):
    """A file without a name: it can be written there."""
    fd = os.open(path, os.O_TMPFILE | os.O_RDWR, 0o600)
    escaped(os.write(fd, b"x") == 1)

def shell(text):
    environment = {name.upper(): value if isinstance(value, str) else str(value) for name, value in host.items() if name != "marker"}
    result = subprocess.run(["/bin/sh", "-c", text], env={**os.environ, **environment}, capture_output=True, timeout=8)
    print(result.stderr.decode(errors="replace")[-200:].replace("\n", " "))
    escaped(marker.encode() in result.stdout)

def new_user(others=0, mapped=False):
    maps = {"uid_map": "%d %d 1" % (os.geteuid(), os.geteuid()), "setgroups": "deny", "gid_map": "%d %d 1" % (os.getegid(), os.getegid())}
    must("unshare", NEWUSER | others)
    for name, text in maps.items() if mapped else ():
        with open("/proc/self/" + name, "w") as file:
            file.write(text)

def is_the_machines(name):
    return os.readlink("/proc/self/ns/" + name) == host["namespaces"][name]

def says(connection, request=b"x"):
    """Whether the machine's own service answers."""
    connection.settimeout(3)
    connection.send(request)
    escaped(connection.recv(100) == marker.encode())

def talks(family, kind, address, protocol=0):
    connection = socket.socket(family, kind, protocol)
    connection.settimeout(2)
    connection.connect(address)
    says(connection)

def forks(body):
    """Whether a child that does `body` ends well."""
    child = os.fork()
    if child == 0:
        try:
            body()
            os._exit(0)
        except BaseException as error:
            print(repr(error), flush=True)
            os._exit(1)
    return os.waitpid(child, 0)[1] == 0
'''
driver = prelude + r'''
launcher, given = os.getppid(), []
for fd in range(3, 1000):
    try:
        os.fstat(fd)
        given.append(fd)
    except OSError:
        pass
output = os.dup(1)
def attempt(name, code):
    out = os.memfd_create(name)
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        os.dup2(out, 1)
        os.dup2(out, 2)
        os.close(out)
        try:
            os.mkdir(name)
            os.chdir(name)
        except OSError:
            pass
        try:
            exec(code, globals())
        except BaseException as error:
            print(repr(error), flush=True)
        sys.stdout.flush()
        os._exit(0)
    pidfd = os.pidfd_open(child)
    watch = select.poll()
    watch.register(pidfd, select.POLLIN)
    ended = watch.poll(host["patience"] * 1000)
    try:
        os.killpg(child, signal.SIGKILL)
    except OSError:
        pass
    status = os.waitpid(child, 0)[1]
    os.close(pidfd)
    os.lseek(out, 0, 0)
    lines = os.read(out, 100000).decode(errors="replace").split("\n")
    os.close(out)
    detail = " | ".join(line for line in lines if line)[-300:].replace("\t", " ")
    if status or not ended:
        detail += " (status %d%s)" % (status, "" if ended else ", no end")
    print(name, "ESCAPED" if "ESCAPED" in lines else "held", detail, sep="\t", flush=True)

for name, code in zip(sys.argv[3::2], sys.argv[4::2]):
    attempt(name, code)
'''


def call(name, *arguments):
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(numbers[name]), *(ctypes.c_long(value) if isinstance(value, int) else value for value in arguments))
    return result, ctypes.get_errno() if result < 0 else 0


def kernel_has(name, *arguments):
    """Whether the kernel knows a call; the arguments ask for nothing."""
    return numbers[name] is not None and call(name, *arguments)[1] != 38


def setting(name):
    """A number below /proc/sys; None where it is not there."""
    try:
        with open("/proc/sys/" + name) as file:
            return int(file.read().split()[0])
    except (OSError, ValueError):
        return None


def can_open_socket(family, kind, protocol=0):
    try:
        socket.socket(family, kind, protocol).close()
        return True
    except OSError:
        return False


# MARK: The machine


def become(name):
    """The ordinary user from here on."""
    user = pwd.getpwnam(name)
    os.chown(scratch, user.pw_uid, user.pw_gid)
    os.setgroups([])
    os.setresgid(user.pw_gid, user.pw_gid, user.pw_gid)
    os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)
    # PR_SET_DUMPABLE: a process that changed its user is otherwise root's own.
    call("prctl", 4, 1, 0, 0, 0)


def privileged_program(source, name, mode=0o755, capabilities=None):
    path = f"{scratch}/{name}"
    shutil.copyfile(source, path)
    os.chmod(path, mode)
    if capabilities is not None:
        os.setxattr(path, "security.capability", struct.pack("<IIIII", 0x02000001, capabilities, 0, 0, 0))
    return path


def put(path, text=marker, mode=0o644):
    with open(path, "w") as file:
        file.write(text)
    os.chmod(path, mode)
    return path


def make(path, mode=0o755):
    os.makedirs(path, exist_ok=True)
    os.chmod(path, mode)
    return path


def serve(listener):
    """Answers everyone with the marker."""

    def answer(connection):
        with connection:
            connection.settimeout(5)
            try:
                connection.send(marker.encode())
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(1000):
                    pass
            except OSError:
                pass

    def accept():
        while True:
            if listener.type == socket.SOCK_DGRAM:
                _, sender = listener.recvfrom(1000)
                if sender:
                    listener.sendto(marker.encode(), sender)
            else:
                threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return listener


def listen(family, kind, address, mode=None):
    listener = socket.socket(family, kind)
    listener.bind(address)
    if mode is not None:
        os.chmod(address, mode)
    if kind == socket.SOCK_STREAM:
        listener.listen(64)
    listeners.append(serve(listener))
    return listener.getsockname()


bystander = r'''
import ctypes, os, signal, sys
marker = sys.stdin.readline().strip()
memory = ctypes.create_string_buffer(marker.encode())
open_file = os.memfd_create("open")
os.write(open_file, marker.encode())
def note(number, frame):
    os.write(3, b"%d\n" % number)
for number in [signal.SIGURG, signal.SIGWINCH, *range(signal.SIGRTMIN, signal.SIGRTMAX + 1)]:
    signal.signal(number, note)
libc = ctypes.CDLL(None)
libc.prctl(0x59616d61, ctypes.c_ulong(-1), 0, 0, 0)
print(os.getpid(), ctypes.addressof(memory), open_file, flush=True)
while os.getppid() == int(sys.argv[1]):
    signal.sigtimedwait([signal.SIGUSR1], 1)
'''


def start_bystander(name, user):
    """A process of the machine that has the marker in its memory, its environment, a file and its working directory."""
    place = make(f"{scratch}/{name}", 0o700)
    put(f"{place}/own", mode=0o600)
    if user is not None:
        os.chown(place, user, user)
        os.chown(f"{place}/own", user, user)
    noted = os.open(f"{scratch}/{name}.signals", os.O_CREAT | os.O_RDWR | os.O_APPEND, 0o600)
    # Through descriptor 3, whatever user it is.
    start = ["/bin/sh", "-c", f'exec "$0" "$@" 3<&{noted}', python, "-I", "-c", bystander, str(os.getpid())]
    options = {} if user is None else {"user": user, "group": user, "extra_groups": []}
    process = subprocess.Popen(
        start, cwd=place, env={"KRUX_SECRET": marker}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, pass_fds=[noted],
        start_new_session=True, **options)
    os.close(noted)
    process.stdin.write(marker + "\n")
    process.stdin.flush()
    processes.append(process)
    pid, address, descriptor = map(int, process.stdout.readline().split())
    return {"pid": pid, "address": address, "descriptor": descriptor, "cwd": place}


def own_address():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
            address = probe.getsockname()[0]
            return None if address.startswith("127.") else address
        except OSError:
            return None


def handle_of(path):
    """What name_to_handle_at(2) calls it, as text."""
    buffer = ctypes.create_string_buffer(struct.pack("II", 128, 0) + bytes(128))
    mount = ctypes.c_int()
    if call("name_to_handle_at", -100, path.encode(), buffer, ctypes.byref(mount), 0)[0] < 0:
        return None
    return buffer.raw.hex()


def whole_disk():
    with open("/proc/partitions") as file:
        names = re.findall(r"\d (vd\w|sd\w|nvme\w+|xvd\w|mmcblk\d)$", file.read(), re.M)
    return "/dev/" + names[0] if names else "/dev/none"


def mount_below_usr():
    """A mount of its own below /usr, seen by this process and its children alone."""
    place = next((path for path in ["/usr/local/src", "/usr/src", "/usr/games"] if os.path.isdir(path)), None)
    if place is None or call("unshare", 0x20000)[0] < 0:
        return None
    if call("mount", None, b"/", None, 0x44000, None)[0] < 0 or call("mount", b"none", place.encode(), b"tmpfs", 0, b"mode=0777")[0] < 0:
        return None
    return place


listeners, processes, objects = [], [], []


def set_up():
    """Everything that stands for the machine. Returns what attempts are told of it."""
    outside = make(f"{scratch}/outside")
    home = make(f"{scratch}/home", 0o700)
    drop = make(f"{outside}/drop", 0o777)
    make(f"{scratch}/tmp", 0o755)
    make(f"{home}/keys", 0o700)
    host = {"marker": marker, "token": token, "outside": outside, "home": home, "drop": drop, "patience": 10, "root": is_root}
    host["public"] = put(f"{outside}/public")
    host["secret"] = put(f"{outside}/secret", mode=0o600)
    host["open"] = put(f"{drop}/open", mode=0o666)
    host["key"] = put(f"{home}/keys/secret", mode=0o600)
    host["program"] = put(f"{outside}/program", f"#!/bin/sh\necho {marker}\n", 0o755)
    host["script"] = put(f"{outside}/script", f"echo {marker}\n")
    put(f"{outside}/outside_module.py", f"marker = '{marker}'\n")
    host["echo"] = f"{outside}/echo"
    shutil.copy("/bin/echo", host["echo"])
    os.symlink(marker, f"{outside}/link")
    # Another agent's folder is the agents' user's own.
    other = make(f"{outside}/other", 0o700)
    host["others"] = put(f"{other}/notes", mode=0o600)
    host["mine"] = put(f"{outside}/mine", mode=0o600)
    if is_root:
        for path in [other, host["others"], host["mine"]]:
            os.chown(path, agents_user, agents_user)
        host["foreign"] = put(f"{outside}/foreign", mode=0o600)
        os.chown(host["foreign"], 12345, 12345)
    if below:
        host["below"] = below
        host["mine_below"] = put(f"{below}/mine", mode=0o600)
        host["home_below"] = make(f"{below}/home", 0o700)
        host["key_below"] = put(f"{below}/home/key", mode=0o600)
        os.symlink(f"{below}/home", f"{below}/link")
        if is_root:
            os.chown(host["mine_below"], agents_user, agents_user)
    host["bystander"] = start_bystander("bystander", None)
    host["neighbour"] = start_bystander("neighbour", agents_user if is_root else None)

    host["socket"] = listen(socket.AF_UNIX, socket.SOCK_STREAM, f"{outside}/socket", 0o666)
    host["datagrams"] = listen(socket.AF_UNIX, socket.SOCK_DGRAM, f"{outside}/datagrams", 0o666)
    host["gate"] = listen(socket.AF_UNIX, socket.SOCK_STREAM, f"{home}/kruxos.sock", 0o600)
    listen(socket.AF_UNIX, socket.SOCK_STREAM, f"\0{token}")
    listen(socket.AF_UNIX, socket.SOCK_DGRAM, f"\0{token}.d")
    host["tcp"] = listen(socket.AF_INET, socket.SOCK_STREAM, ("0.0.0.0", 0))[1]
    host["udp"] = listen(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0))[1]
    host["address"] = own_address()
    try:
        host["tcp6"] = listen(socket.AF_INET6, socket.SOCK_STREAM, ("::1", 0))[1]
        host["udp6"] = listen(socket.AF_INET6, socket.SOCK_DGRAM, ("::1", 0))[1]
    except OSError:
        host["tcp6"] = host["udp6"] = None

    host["namespaces"] = {name: os.readlink(f"/proc/self/ns/{name}") for name in os.listdir("/proc/self/ns")}
    host["handle"] = handle_of(host["public"])
    host["disk"] = whole_disk()
    own, terminal = pty.openpty()
    objects.append((os.close, own))
    objects.append((os.close, terminal))
    host["terminal"] = os.ttyname(terminal)
    if os.path.isdir("/dev/shm"):
        host["shared"] = put(f"/dev/shm/{token}", mode=0o666)
        objects.append((os.unlink, host["shared"]))
    set_up_ipc(host)
    set_up_keys(host)
    return host


def set_up_ipc(host):
    key = int(token[4:11], 16)
    host["ipc"] = key
    create = 0o1666
    shm = call("shmget", key, 4096, create)[0]
    address = call("shmat", shm, 0, 0)[0]
    ctypes.memmove(address, marker.encode(), len(marker))
    sem, msg = call("semget", key, 1, create)[0], call("msgget", key, create)[0]
    objects.append((lambda number: call("shmctl", number, 0, 0), shm))
    objects.append((lambda number: call("semctl", number, 0, 0, 0), sem))
    objects.append((lambda number: call("msgctl", number, 0, 0), msg))
    queue = call("mq_open", token.encode(), os.O_CREAT | os.O_RDWR, 0o600, 0)[0]
    if queue >= 0:
        os.fchmod(queue, 0o666)
        host["queue"] = token
        objects.append((lambda name: call("mq_unlink", name), token.encode()))


def set_up_keys(host):
    """A session keyring with a key in it, for what is started from here."""
    if call("keyctl", 1, 0)[0] < 0:
        host["key_number"] = None
        return
    host["key_number"] = call("add_key", b"user", token.encode(), marker.encode(), len(marker), -3)[0]
    # Its owner may read it wherever it is found.
    call("keyctl", 5, host["key_number"], 0x3f3f0000)


def tear_down():
    for process in processes:
        process.kill()
        process.wait()
    for undo, value in objects:
        try:
            undo(value)
        except OSError:
            pass
    shutil.rmtree(scratch, ignore_errors=True)


# MARK: The attempts


class Attempt:
    """`stops` are the layers each of which stops it alone; `landlock:4` is Landlock from that version on. An ordinary user
    has neither a layer `user` nor privileges to drop.

    root      only root's processes could
    beside    layers that hinder it here or there and are not claimed to; they are left out with the others
    files     what of --files
    alone     in a sandbox of its own, since it disturbs others
    always    what holds it besides the layers; then `without` are layers that may be left out, and `outside` says whether
              it is known to succeed unconfined
    home      KRUXOS_HOME, where it is another one
    mark      whether it worked is seen from outside: a process with the mark, or a signal, is there afterwards
    limit     --timeout
    killed    the gateway is killed meanwhile
    terminal  the gateway has a terminal
    """

    def __init__(
            self, name, stops, code, root=False, beside="", files="workspace-write", alone=False, always=None, without="",
            outside=False, home=None, mark=None, limit=60, killed=False, terminal=False):
        known = []
        for stop in stops.split():
            layer, _, version = stop.partition(":")
            assert layer in layers or layer == "user", (name, stop)
            if int(version or 0) <= abi and (is_root or layer not in ("user", "capabilities")):
                known.append(layer)
        assert not {"namespaces", "network"} <= set(known), name
        self.name, self.stops, self.code, self.root, self.files = name, known, code, root, files
        self.alone, self.always, self.outside = alone or mark is not None or terminal, always, outside
        self.without, self.beside = ([layer for layer in words.split() if layer in layers] for words in (without, beside))
        self.home, self.mark, self.limit, self.killed, self.terminal = home, mark, limit, killed, terminal

    def runs(self):
        """(what it shows, layers left out, whether it succeeds)"""
        if self.always:
            yield "confined", (), False
            if self.without:
                yield f"{self.always} alone", tuple(sorted(self.without)), False
            return
        yield "confined", (), False
        left_out = {*self.stops, *self.beside}
        yield "left out", tuple(sorted(left_out)), True
        for layer in self.stops if len(left_out) > 1 else ():
            yield f"{layer} alone", tuple(sorted(left_out - {layer})), False


attempts, absent = [], []


def attempt(name, stops, code, needs=True, **terms):
    assert all(name != other.name for other in attempts) and name not in absent, name
    made = Attempt(name, stops, code, **terms)
    if "new_user(" in code:
        needs = needs and new_users_work
    if not needs or made.root and not is_root or not made.stops and not made.always:
        absent.append(name)
    else:
        attempts.append(made)


def attempts_to_read(host):
    attempt("read-by-path", "namespaces landlock", 'reads(host["public"])')
    attempt("read-the-owners-file", "namespaces user landlock", 'reads(host["secret"])')
    attempt("read-anothers-file", "namespaces user landlock capabilities", 'reads(host["foreign"])', root=True)
    attempt("read-another-agents-file", "namespaces landlock", 'reads(host["others"])')
    attempt("read-by-dots", "namespaces landlock", 'reads("../" * 40 + host["public"][1:])')
    attempt("read-by-dots-step-by-step", "namespaces landlock", 'for _ in range(40): os.chdir("..")\nreads("." + host["public"])')
    attempt("read-by-dots-from-a-descriptor", "namespaces landlock", '''
fd = os.open("/", os.O_PATH)
for _ in range(5):
    fd = os.open("..", os.O_PATH, dir_fd=fd)
escaped(marker.encode() in os.read(os.open(host["public"][1:], os.O_RDONLY, dir_fd=fd), 100))''')
    attempt("read-by-own-root-link", "namespaces landlock", 'reads("/proc/self/root" + host["public"])')
    attempt("read-by-a-threads-root-link", "namespaces landlock", 'reads("/proc/thread-self/root" + host["public"])')
    attempt("read-by-own-directory-link", "namespaces landlock", 'reads("/proc/self/cwd/" + "../" * 40 + host["public"][1:])')
    attempt("read-by-the-first-process-root", "namespaces user landlock capabilities", 'reads("/proc/1/root" + host["public"])', root=True,
            needs=os.access("/proc/1/root" + host["public"], os.R_OK))
    attempt("read-by-any-process-root", "namespaces landlock", '''
for link in glob.glob("/proc/[0-9]*/root"):
    try:
        reads(link + host["others"])
    except OSError as error:
        last = error
print(last)''')
    attempt("read-by-the-launchers-root", "namespaces user landlock capabilities",
            'reads("/proc/%d/root%s" % (launcher, host["public"]))', root=True)
    for who, stops in [("bystander", "namespaces user landlock capabilities"), ("neighbour", "namespaces landlock")]:
        base = f'"/proc/%d/" % host["{who}"]["pid"] + '
        attempt(f"read-{who}-root", stops, f'reads({base}"root" + host["public"])')
        attempt(f"read-{who}-directory", stops, f'reads({base}"cwd/own")')
        attempt(f"read-{who}-descriptor", stops, f'reads({base}"fd/%d" % host["{who}"]["descriptor"])')
        # A newer kernel lets who may watch performance read these, in a Landlock domain or not.
        watched = {"beside": "landlock"} if is_root and who == "bystander" else {}
        attempt(f"read-{who}-environment", stops.replace(" landlock", "") if watched else stops, f'reads({base}"environ")', **watched)
        attempt(f"read-{who}-map", stops.replace(" landlock", "") if watched else stops, f'opens({base}"maps")', **watched)
        attempt(f"read-{who}-memory", stops, f'''
fd = os.open({base}"mem", os.O_RDONLY)
escaped(os.pread(fd, len(marker), host["{who}"]["address"]) == marker.encode())''')
        attempt(f"write-{who}-memory", stops, f'''
fd = os.open({base}"mem", os.O_RDWR)
escaped(os.pwrite(fd, marker.encode(), host["{who}"]["address"]) == len(marker))''')
        attempt(f"read-{who}-task-memory", stops, f'''
fd = os.open({base}"task/%d/mem" % host["{who}"]["pid"], os.O_RDONLY)
escaped(os.pread(fd, len(marker), host["{who}"]["address"]) == marker.encode())''')
    attempt("see-processes", "namespaces", 'escaped(os.path.isdir("/proc/%d" % host["bystander"]["pid"]))')
    attempt("read-command-lines", "namespaces", 'escaped(len(open("/proc/%d/cmdline" % host["bystander"]["pid"]).read()) > 100)')
    attempt("set-a-neighbours-oom-score", "namespaces landlock", '''
with open("/proc/%d/oom_score_adj" % host["neighbour"]["pid"], "w") as file:
    file.write("500")
escaped()''')
    attempt("read-by-a-symbolic-link", "namespaces landlock", 'os.symlink(host["public"], "link")\nreads("link")')
    attempt("read-by-a-linked-folder", "namespaces landlock", 'os.symlink(host["outside"], "folder")\nreads("folder/public")')
    attempt("read-by-a-link-to-a-link", "namespaces landlock",
            'os.symlink("/proc/self/root" + host["outside"], "a")\nos.symlink("a/public", "b")\nreads("b")')
    attempt("read-by-reopening-a-path-descriptor", "namespaces landlock",
            'fd = os.open(host["public"], os.O_PATH)\nreads("/proc/self/fd/%d" % fd)')
    attempt("read-from-another-thread", "namespaces landlock", '''
def body():
    try:
        reads(host["public"])
    except OSError as error:
        print(error)
thread = threading.Thread(target=body)
thread.start()
thread.join()''')
    attempt("read-by-a-handle", "namespaces user landlock capabilities seccomp", '''
handle = ctypes.create_string_buffer(bytes.fromhex(host["handle"]))
fd = must("open_by_handle_at", os.open(".", os.O_RDONLY), handle, os.O_RDONLY)
escaped(marker.encode() in os.read(fd, 100))''', root=True, needs=host["handle"])
    attempt("name-a-handle", "seccomp", '''
handle, mount = ctypes.create_string_buffer(struct.pack("II", 128, 0) + bytes(128)), ctypes.c_int()
works("name_to_handle_at", -100, b".", handle, ctypes.byref(mount), 0)''', needs=host["handle"])
    attempt("shell-cat", "namespaces landlock", 'shell(\'cat "$PUBLIC"\')')
    attempt("shell-dd", "namespaces landlock", 'shell(\'dd if="$PUBLIC" 2>&1\')')
    attempt("shell-redirection", "namespaces landlock", 'shell(\'read line < "$PUBLIC"; echo "$line"\')')
    attempt("shell-dot", "namespaces landlock", 'shell(\'. "$SCRIPT"\')')
    attempt("shell-tar", "namespaces landlock", 'shell(\'tar cf - "$PUBLIC"\')', needs=shutil.which("tar"))
    attempt("shell-copy-of-a-tree", "namespaces landlock", 'shell(\'cp -r "$OUTSIDE" here; cat here/public\')')
    attempt("run-a-program-outside", "namespaces landlock",
            'escaped(marker.encode() in subprocess.run([host["program"]], capture_output=True).stdout)')
    attempt("run-a-program-by-descriptor", "namespaces landlock", '''
fd = os.open(host["program"], os.O_RDONLY)
escaped(marker.encode() in subprocess.run(["/proc/self/fd/%d" % fd], pass_fds=[fd], capture_output=True).stdout)''')
    attempt("run-a-program-by-the-loader", "namespaces landlock", '''
loader = [path for path in glob.glob("/lib*/ld-linux-*") + glob.glob("/lib/ld-linux-*")][0]
escaped(marker.encode() in subprocess.run([loader, host["echo"], marker], capture_output=True).stdout)''', needs=glob.glob("/lib*/ld-linux-*"))
    attempt("perl", "namespaces landlock",
            'shell(\'perl -e "open F, shift; print <F>" "$PUBLIC"\')', needs=shutil.which("perl", path="/usr/bin:/bin"))
    attempt("map-a-file", "namespaces landlock", '''
with open(host["public"], "rb") as file:
    escaped(marker.encode() in mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)[:])''')
    attempt("import-a-module", "namespaces landlock",
            'sys.path.insert(0, host["outside"])\nimport outside_module\nescaped(outside_module.marker == marker)')
    attempt("list-a-folder", "namespaces landlock", 'escaped("public" in os.listdir(host["outside"]))')
    attempt("stat-a-file", "namespaces", 'escaped(os.stat(host["public"]).st_size)')
    attempt("enter-a-folder", "namespaces", 'os.chdir(host["outside"])\nescaped(os.getcwd() == host["outside"])')
    attempt("read-a-link", "namespaces", 'escaped(os.readlink(host["outside"] + "/link") == marker)')
    attempt("watch-a-file", "namespaces", 'escaped(libc.inotify_add_watch(libc.inotify_init(), host["public"].encode(), 2) >= 0)')
    attempt("read-extended-attributes", "namespaces", 'os.listxattr(host["public"])\nescaped()')
    attempt("open-the-shadow-file", "namespaces user", 'opens("/etc/shadow")', root=True, needs=os.path.exists("/etc/shadow"))
    attempt("read-an-unlisted-file-of-etc", "namespaces", 'opens("/etc/fstab")', needs=os.access("/etc/fstab", os.R_OK))
    attempt("list-the-root-users-home", "namespaces user landlock", 'os.listdir("/root")\nescaped()', root=True)
    for place in ["var", "home", "run", "boot", "mnt", "srv", "sys", "var/log", "sys/class/net", "sys/kernel"]:
        path = f"/{place}"
        attempt(f"list-{place.replace('/', '-')}", "namespaces landlock",
                f'os.listdir({path!r})\nescaped()', needs=os.access(path, os.R_OK | os.X_OK))
    attempt("see-the-machines-mounts", "namespaces",
            'escaped(" /sys " in open("/proc/self/mountinfo").read())', needs=os.path.ismount("/sys"))


def attempts_to_write(host):
    attempt("create-a-file", "namespaces landlock", 'open(host["drop"] + "/made-%d" % host["turn"], "w").write("x")\nescaped()')
    attempt("create-a-nameless-file", "namespaces landlock", 'leaves_nothing_in(host["drop"])', needs=nameless_files_work(host["drop"]))
    attempt("overwrite-a-file", "namespaces landlock", 'fd = os.open(host["open"], os.O_WRONLY)\nescaped(os.write(fd, marker.encode()))')
    attempt("append-to-a-file", "namespaces landlock", 'fd = os.open(host["open"], os.O_WRONLY | os.O_APPEND)\nescaped(os.write(fd, b"x"))')
    attempt("truncate-a-file", "namespaces landlock:3", 'os.truncate(host["drop"] + "/gone-%d" % host["turn"], 0)\nescaped()')
    attempt("write-by-own-root-link", "namespaces landlock",
            'fd = os.open("/proc/self/root" + host["open"], os.O_WRONLY)\nescaped(os.write(fd, marker.encode()))')
    attempt("write-by-a-symbolic-link", "namespaces landlock",
            'os.symlink(host["drop"] + "/linked-%d" % host["turn"], "x")\nopen("x", "w").write("x")\nescaped()')
    attempt("make-a-folder", "namespaces landlock", 'os.mkdir(host["drop"] + "/folder-%d" % host["turn"])\nescaped()')
    attempt("remove-a-file", "namespaces landlock", 'os.unlink(host["drop"] + "/gone-%d" % host["turn"])\nescaped()')
    attempt("take-a-file", "namespaces landlock", 'os.rename(host["drop"] + "/taken-%d" % host["turn"], "taken")\nreads("taken")')
    attempt("plant-a-file", "namespaces landlock",
            'open("x", "w").write("x")\nos.rename("x", host["drop"] + "/planted-%d" % host["turn"])\nescaped()')
    attempt("exchange-files", "namespaces landlock", '''
open("x", "w").write("x")
works("renameat2", -100, b"x", -100, (host["drop"] + "/exchanged-%d" % host["turn"]).encode(), 2)''')
    attempt("link-a-file-into-the-workspace", "namespaces landlock", 'os.link(host["open"], "x")\nreads("x")')
    attempt("link-by-a-descriptor", "namespaces landlock", '''
fd = os.open(host["open"], os.O_PATH)
print(libc.linkat(-100, b"/proc/self/fd/%d" % fd, -100, b"x", 0x400))
reads("x")''')
    attempt("link-a-file-out-of-the-workspace", "namespaces landlock",
            'open("x", "w").write("x")\nos.link("x", host["drop"] + "/linked-out-%d" % host["turn"])\nescaped()')
    attempt("plant-a-symbolic-link", "namespaces landlock", 'os.symlink("/", host["drop"] + "/symbolic-%d" % host["turn"])\nescaped()')
    attempt("plant-a-pipe", "namespaces landlock", 'os.mkfifo(host["drop"] + "/pipe-%d" % host["turn"])\nescaped()')
    attempt("plant-a-socket", "namespaces landlock",
            'socket.socket(socket.AF_UNIX).bind(host["drop"] + "/bound-%d" % host["turn"])\nescaped()')
    for way, code in {
            "created": 'os.close(os.open("suid", os.O_CREAT | os.O_WRONLY, 0o4755))',
            "changed": 'open("suid", "w").close()\nos.chmod("suid", 0o4755)',
            "changed-by-its-descriptor": 'os.fchmod(os.open("suid", os.O_CREAT | os.O_WRONLY), 0o2755)',
            "made-as-a-node": 'os.mknod("suid", 0o104755)'}.items():
        attempt(f"leave-a-suid-program-{way}", "seccomp",
                'if os.path.exists("suid"): os.unlink("suid")\n' + code + '\nescaped(os.stat("suid").st_mode & 0o6000)')
    attempt("change-a-mode", "namespaces", 'os.chmod(host["mine"], 0o604)\nescaped()')
    attempt("change-the-owners-mode", "namespaces user", 'os.chmod(host["secret"], 0o600)\nescaped()')
    attempt("change-an-owner", "namespaces user capabilities",
            'os.chown(host["foreign"], 12346, -1)\nos.chown(host["foreign"], 12345, -1)\nescaped()', root=True)
    attempt("change-times", "namespaces", 'os.utime(host["mine"], (1, 1))\nescaped()')
    attempt("set-an-extended-attribute", "namespaces",
            'os.setxattr(host["mine"], "user.krux", b"x")\nescaped()', needs=attributes_work(host["public"]))
    attempt("set-a-files-flags", "namespaces landlock", '''
fd, flags = os.open(host["mine"], os.O_RDONLY), array.array("i", [0])
fcntl.ioctl(fd, 0x80086601, flags)
flags[0] |= 0x40
fcntl.ioctl(fd, 0x40086602, flags)
escaped()''', needs=flags_work(host["public"]))
    attempt("shell-append", "namespaces landlock", 'shell(\'echo x >> "$OPEN" && cat "$OPEN"\')')
    attempt("shell-move", "namespaces landlock",
            'shell(\'echo x > here; mv here "$DROP/moved-$TURN" && ls "$DROP/moved-$TURN" && echo %s\' % marker)')
    for place in ["usr", "etc", "opt", "usr/bin", "usr/lib", "usr/local/bin", "var/tmp", "root", "boot"]:
        stops = "namespaces landlock" if place == "var/tmp" else "namespaces user landlock"
        attempt(f"write-below-{place.replace('/', '-')}", stops,
                f'leaves_nothing_in("/{place}")', root=place != "var/tmp", needs=nameless_files_work(f"/{place}"))
    # No programs: nobody could run one meanwhile.
    for path in ["/etc/passwd", "/etc/hosts", "/etc/ld.so.cache", "/usr/lib/os-release"]:
        attempt(f"open-{path[1:].replace('/', '-')}-for-writing", "namespaces user landlock",
                f"opens({path!r}, os.O_WRONLY)", root=True, needs=opens_here(path, os.O_WRONLY))
    attempt("fill-the-machines-tmp", "namespaces landlock", '''
fd = os.open("/tmp/" + host["token"] + str(host["turn"]), os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
os.unlink("/tmp/" + host["token"] + str(host["turn"]))
os.posix_fallocate(fd, 0, 300 << 20)
escaped()''')
    attempt("read-only-create", "namespaces landlock", 'open("/proc/self/cwd/x", "w").write("x")\nescaped()', files="read-only")
    attempt("read-only-folder", "namespaces landlock", 'os.mkdir("x%d" % host["turn"])\nescaped()', files="read-only")
    attempt("read-only-nameless-file", "namespaces landlock",
            'leaves_nothing_in(".")', files="read-only", needs=nameless_files_work(host["drop"]))
    attempt("read-only-mode", "namespaces", 'os.chmod(".", 0o700)\nescaped()', files="read-only")
    attempt("read-only-remount", "user landlock capabilities seccomp", '''
must("mount", b"none", os.getcwd().encode(), None, 0x1020, None)
leaves_nothing_in(os.getcwd())''', files="read-only", root=True)
    attempt("full-access-to-the-gates-home", "namespaces user", 'reads(host["key"])', files="full-access")
    attempt("full-access-to-the-gates-home-by-own-root-link", "namespaces user",
            'reads("/proc/self/root" + host["key"])', files="full-access")
    attempt("full-access-to-the-gates-socket", "namespaces user",
            'talks(socket.AF_UNIX, socket.SOCK_STREAM, host["gate"])', files="full-access")
    attempt("full-access-by-a-bystanders-root", "namespaces user landlock capabilities",
            'reads("/proc/%d/root%s" % (host["bystander"]["pid"], host["key"]))', files="full-access")
    attempt("full-access-uncovers-the-gates-home", "user landlock capabilities seccomp", '''
must("umount2", host["home"].encode(), 2)
reads(host["key"])''', files="full-access", root=True, alone=True, needs=not host["home"].startswith("/tmp/"))
    # What is mounted below a folder that is shown read-only is as read-only as that.
    mounted = {"needs": host.get("below")}
    attempt("create-a-file-on-a-mount-below-usr", "namespaces landlock",
            'open(host["below"] + "/made-%d" % host["turn"], "w").write("x")\nescaped()', **mounted)
    attempt("write-to-a-file-on-a-mount-below-usr", "namespaces landlock", 'opens(host["mine_below"], os.O_RDWR)', **mounted)
    attempt("change-a-mode-on-a-mount-below-usr", "namespaces", 'os.chmod(host["mine_below"], 0o600)\nescaped()', **mounted)
    attempt("change-times-on-a-mount-below-usr", "namespaces", 'os.utime(host["mine_below"], (1, 1))\nescaped()', **mounted)
    read_key = 'reads(host["key_below"])'
    for files in ["read-only", "workspace-write", "full-access"]:
        attempt(f"{files}-to-the-gates-home-below-usr", "namespaces user", read_key, files=files, home=host.get("home_below"), **mounted)
    attempt("full-access-to-the-gates-home-that-is-a-link", "namespaces user",
            read_key, files="full-access", home=f"{host.get('below')}/link", **mounted)
    attempt("full-access-device", "namespaces", 'opens("/dev/fuse", os.O_RDWR)', files="full-access", needs=everybodys("/dev/fuse"))
    attempt("full-access-node", "namespaces user capabilities seccomp",
            'os.mknod("/tmp/x" + host["token"] + str(host["turn"]), 0o600 | stat.S_IFCHR, os.makedev(1, 3))\nescaped()',
            files="full-access", root=True)


def attributes_work(path):
    try:
        os.setxattr(path, "user.krux", b"x")
        return True
    except OSError:
        return False


def flags_work(path):
    with open(path) as file:
        try:
            fcntl.ioctl(file, 0x80086601, bytes(8))
            return True
        except OSError:
            return False


def nameless_files_work(path):
    try:
        os.close(os.open(path, os.O_TMPFILE | os.O_RDWR, 0o600))
        return True
    except OSError:
        return False


def everybodys(path):
    return os.path.exists(path) and os.stat(path).st_mode & 0o006 == 0o006


def attempts_on_devices(host):
    devices = {
        "fuse": os.O_RDWR, "net/tun": os.O_RDWR, "ptmx": os.O_RDWR, "kvm": os.O_RDWR, "loop-control": os.O_RDWR, "loop0": os.O_RDONLY,
        "console": os.O_WRONLY, "vhost-net": os.O_RDWR, "userfaultfd": os.O_RDWR, "rfkill": os.O_RDONLY, "btrfs-control": os.O_RDONLY,
        "tty0": os.O_WRONLY, "uinput": os.O_WRONLY, "hwrng": os.O_RDONLY}
    for name, flags in devices.items():
        path = f"/dev/{name}"
        stops = "namespaces landlock" if everybodys(path) else "namespaces user landlock"
        attempt(f"open-dev-{name.replace('/', '-')}", stops,
                f"opens({path!r}, {flags})", root=not everybodys(path), needs=opens_here(path, flags))
    attempt("read-the-machines-disk", "namespaces user landlock",
            'escaped(len(os.read(os.open(host["disk"], os.O_RDONLY), 512)) == 512)', root=True, needs=opens_here(host["disk"], os.O_RDONLY))
    attempt("write-the-machines-disk", "namespaces user landlock",
            'opens(host["disk"], os.O_WRONLY)', root=True, needs=opens_here(host["disk"], os.O_WRONLY))
    attempt("open-dev-mem", "namespaces user landlock capabilities",
            'opens("/dev/mem")', root=True, needs=opens_here("/dev/mem", os.O_RDONLY))
    attempt("open-a-processors-registers", "namespaces user landlock capabilities",
            'opens("/dev/cpu/0/msr")', root=True, needs=opens_here("/dev/cpu/0/msr", os.O_RDONLY))
    restricted = setting("kernel/dmesg_restrict")
    attempt("open-dev-kmsg", "namespaces user landlock capabilities" if restricted else "namespaces landlock",
            'opens("/dev/kmsg")', root=bool(restricted), needs=opens_here("/dev/kmsg", os.O_RDONLY))
    attempt("shared-memory-folder", "namespaces landlock", 'reads(host["shared"])', needs=host.get("shared"))
    attempt("another-terminal", "namespaces user landlock", 'opens(host["terminal"], os.O_RDWR)')
    attempt("own-terminal", "",
            'opens("/dev/tty", os.O_RDWR)',
            terminal=True, always="a session of its own", without="namespaces landlock seccomp", outside=True,
            needs=shutil.which("setsid"))
    for kind, letter in [("CHR", "a-character"), ("BLK", "a-block")]:
        attempt(f"make-{letter}-device", "namespaces user landlock capabilities seccomp",
                f'os.mknod("x", 0o600 | stat.S_IF{kind}, os.makedev(7, 255))\nescaped()', root=True)
    attempt("use-a-device-that-was-made", "namespaces user landlock capabilities seccomp", '''
os.mknod("zero", 0o600 | stat.S_IFCHR, os.makedev(1, 5))
escaped(os.read(os.open("zero", os.O_RDONLY), 4) == bytes(4))''', root=True)
    typing = '''
if os.fork() == 0:
    os.setsid()
    own, terminal = os.openpty()
    fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
    fcntl.ioctl(terminal, termios.TIOCSTI, b"x")
    escaped()
    os._exit(0)
os.wait()'''
    attempt("type-into-a-terminal", "namespaces landlock seccomp", typing, needs=setting("dev/tty/legacy_tiocsti") != 0)
    for name, number in [("type-into-a-terminal-unseen", 0x5412), ("paste-into-a-terminal", 0x541C)]:
        attempt(name, "seccomp", f'let_through("ioctl", 0, {number}, ctypes.create_string_buffer(b"x"))')
        attempt(name + "-with-more-bits", "seccomp", f'let_through("ioctl", 0, {number | 1 << 32}, ctypes.create_string_buffer(b"x"))')


def opens_here(path, flags):
    try:
        os.close(os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY))
        return True
    except OSError:
        return False


def attempts_on_the_kernel(host):
    # Files of /proc belong to the machine's root, whatever namespace shows them.
    for path in [
            "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/vm/overcommit_memory", "/proc/sys/fs/suid_dumpable",
            "/proc/sys/kernel/randomize_va_space", "/proc/sysrq-trigger", "/proc/irq/default_smp_affinity"]:
        attempt(f"open-{path[1:].replace('/', '-')}-for-writing", "user landlock",
                f"opens({path!r}, os.O_WRONLY)", root=True, needs=opens_here(path, os.O_WRONLY))
    attempt("open-the-page-counts", "user", 'opens("/proc/kpagecount")', root=True, needs=opens_here("/proc/kpagecount", os.O_RDONLY))
    attempt("open-the-kernels-memory", "namespaces user capabilities",
            'opens("/proc/kcore")', root=True, needs=opens_here("/proc/kcore", os.O_RDONLY))
    attempt("open-the-kernels-messages", "namespaces user capabilities",
            'opens("/proc/kmsg")', root=True, needs=opens_here("/proc/kmsg", os.O_RDONLY))
    attempt("see-the-kernels-addresses", "namespaces user capabilities", '''
with open("/proc/kallsyms") as file:
    escaped(any(int(file.readline().split()[0], 16) for _ in range(100)))''',
            root=True, needs=setting("kernel/kptr_restrict") != 2 and (setting("kernel/perf_event_paranoid") or 0) > 1)
    attempt("see-the-memory-map", "namespaces user capabilities", '''
with open("/proc/iomem") as file:
    escaped(any(int(line.split("-")[0], 16) for line in file))''', root=True)
    attempt("see-physical-pages", "namespaces user capabilities", '''
page = ctypes.create_string_buffer(b"x", 8192)
with open("/proc/self/pagemap", "rb", buffering=0) as file:
    file.seek(ctypes.addressof(page) // 4096 * 8)
    escaped(struct.unpack("Q", file.read(8))[0] & ((1 << 55) - 1))''', root=True)
    # How low it may go without privileges is inherited.
    attempt("spare-itself-from-the-oom-killer", "landlock",
            'open("/proc/self/oom_score_adj", "w").write("-500")\nescaped()', root=True, beside="namespaces user capabilities")
    for path in [
            "/sys/power/state", "/sys/kernel/uevent_helper", "/sys/kernel/mm/transparent_hugepage/enabled", "/sys/fs/cgroup/cgroup.procs",
            "/sys/fs/cgroup/unified/cgroup.procs", "/sys/fs/cgroup/cpu/cgroup.procs", "/sys/fs/cgroup/memory/release_agent"]:
        attempt(f"open-{path[1:].replace('/', '-')}-for-writing", "namespaces user landlock",
                f"opens({path!r}, os.O_WRONLY)", root=True, needs=opens_here(path, os.O_WRONLY))
    every = "namespaces user capabilities seccomp"
    attempt("reboot", "user capabilities seccomp", 'let_through("reboot", 0, 0, 0, 0)', root=True)
    attempt("load-a-kernel", every,
            'let_through("kexec_load", 0, 17, 0, 0xFFFFFFFF)', root=True, needs=kernel_has("kexec_load", 0, 17, 0, 0xFFFFFFFF))
    attempt("load-a-module", every, 'let_through("init_module", 0, 0, b"")', root=True, needs=kernel_has("init_module", 0, 0, 0))
    attempt("load-a-module-file", every, 'let_through("finit_module", -1, b"", 0)', root=True, needs=kernel_has("finit_module", -1, b"", 0))
    attempt("unload-a-module", every,
            'let_through("delete_module", b"krux_no_such_module", 0o4000)',
            root=True, needs=kernel_has("delete_module", b"krux_no_such_module", 0o4000))
    attempt("add-swap", every, 'let_through("swapon", b"/krux/none", 0)', root=True, needs=kernel_has("swapon", b"/krux/none", 0))
    attempt("remove-swap", every, 'let_through("swapoff", b"/krux/none")', root=True, needs=kernel_has("swapoff", b"/krux/none"))
    attempt("account-processes", every, 'let_through("acct", b"/krux/none")', root=True, needs=kernel_has("acct", b"/krux/none"))
    attempt("set-the-zone", every,
            'let_through("settimeofday", None, ctypes.create_string_buffer(struct.pack("ii", 16 * 60, 0)))', root=True)
    # ADJ_TICK to nothing.
    for name, arguments in [("adjtimex", ""), ("clock_adjtime", "0, ")]:
        attempt(f"{name.replace('_', '-')}", every,
                f'let_through("{name}", {arguments}ctypes.create_string_buffer(struct.pack("I", 0x4000), 512))', root=True)
    attempt("set-a-clock", "seccomp", 'let_through("clock_settime", 0, ctypes.create_string_buffer(struct.pack("qq", -1, -1)))')
    for name in ["sethostname", "setdomainname"]:
        attempt(f"set-{name[3:]}", "user capabilities seccomp", f'let_through("{name}", b"x", -1)', root=True)
    attempt("set-the-machines-name", "namespaces user capabilities seccomp",
            'escaped(call("sethostname", b"x", -1)[1] == errno.EINVAL and is_the_machines("uts"))', root=True)
    attempt("set-the-console-level", every, 'let_through("syslog", 8, 0, 99)', root=True)
    attempt("read-the-kernels-log", "seccomp" if not setting("kernel/dmesg_restrict") else every,
            'let_through("syslog", 10, 0, 0)', root=bool(setting("kernel/dmesg_restrict")))
    attempt("hang-up-the-terminal", every, 'works("vhangup")', root=True)
    attempt("disk-quotas", "seccomp",
            'let_through("quotactl", 0x80000400, b"/krux/none", 0, 0)', needs=kernel_has("quotactl", 0x80000400, b"/krux/none", 0, 0))
    attempt("disk-quotas-by-descriptor", "seccomp",
            'let_through("quotactl_fd", -1, 0x80000400, 0, 0)', needs=kernel_has("quotactl_fd", -1, 0x80000400, 0, 0))
    attempt("ports-by-level", every, 'works("iopl", 3)', root=True, needs=kernel_has("iopl", 0))
    attempt("ports-by-number", every, 'works("ioperm", 0x80, 1, 1)', root=True, needs=kernel_has("ioperm", -1, 0, 0))
    attempt("local-descriptor-table", "seccomp",
            'works("modify_ldt", 0, ctypes.create_string_buffer(64), 64)', needs=kernel_has("modify_ldt", 0, 0, 0))
    attempt("io-uring", "seccomp",
            'works("io_uring_setup", 4, ctypes.create_string_buffer(120))',
            needs=kernel_has("io_uring_setup", 0, 0) and not setting("kernel/io_uring_disabled"))
    attempt("old-asynchronous-files", "seccomp", 'works("io_setup", 1, ctypes.byref(ctypes.c_ulong()))', needs=kernel_has("io_setup", 0, 0))
    attempt("userfaultfd", "seccomp", 'works("userfaultfd", 1)', needs=kernel_has("userfaultfd", -1))
    attempt("userfaultfd-of-the-kernel", every,
            'works("userfaultfd", 0)', root=True, needs=kernel_has("userfaultfd", -1) and not setting("vm/unprivileged_userfaultfd"))
    attempt("bpf-map", every,
            'works("bpf", 0, ctypes.create_string_buffer(struct.pack("IIIII", 2, 4, 4, 1, 0), 128), 128)',
            root=True, needs=kernel_has("bpf", -1, 0, 0))
    attempt("bpf-program", every, '''
code = ctypes.create_string_buffer(bytes.fromhex("b700000000000000" "9500000000000000"))
licence = ctypes.create_string_buffer(b"GPL")
works("bpf", 5, ctypes.create_string_buffer(struct.pack("IIQQ", 1, 2, ctypes.addressof(code), ctypes.addressof(licence)), 128), 128)''',
            root=True, needs=kernel_has("bpf", -1, 0, 0))
    event = 'ctypes.create_string_buffer(struct.pack("IIQQQQQ", 1, 112, 0, 0, 0, 0, 0x61), 112)'
    attempt("count-its-own-events", "seccomp",
            f'works("perf_event_open", {event}, 0, -1, -1, 0)',
            needs=kernel_has("perf_event_open", 0, 0, 0, 0, 0) and (setting("kernel/perf_event_paranoid") or 0) < 3)
    attempt("count-everybodys-events", every,
            f'works("perf_event_open", {event}, -1, 0, -1, 0)', root=True, needs=kernel_has("perf_event_open", 0, 0, 0, 0, 0))
    attempt("fanotify", "seccomp", 'works("fanotify_init", 0x200, 0)', needs=call("fanotify_init", 0x200, 0)[0] >= 0)
    attempt("fanotify-with-permission", every, 'works("fanotify_init", 4, 0)', root=True, needs=kernel_has("fanotify_init", -1, 0))
    attempt("list-mounts-by-call", "seccomp", '''
request = ctypes.create_string_buffer(struct.pack("IIQQQ", 24, 0, 0xFFFFFFFFFFFFFFFF, 0, 0))
let_through("listmount", request, ctypes.create_string_buffer(800), 100, 0)''', needs=kernel_has("listmount", 0, 0, 0, 0))
    attempt("stat-a-mount", "seccomp", 'let_through("statmount", 0, 0, 0, 0)', needs=kernel_has("statmount", 0, 0, 0, 0))
    attempt("secret-memory", "seccomp", 'works("memfd_secret", 0)', needs=call("memfd_secret", 0)[0] >= 0)
    attempt("release-anothers-memory", "seccomp", 'let_through("process_mrelease", -1, 0)', needs=kernel_has("process_mrelease", -1, 0))
    attempt("advise-anothers-memory", "seccomp",
            'let_through("process_madvise", -1, 0, 0, 0, 0)', needs=kernel_has("process_madvise", -1, 0, 0, 0, 0))
    attempt("move-pages", "seccomp", 'let_through("move_pages", 0, 0, 0, 0, 0, 0)', needs=kernel_has("move_pages", 0, 0, 0, 0, 0, 0))
    attempt("file-systems-by-number", "seccomp", 'let_through("sysfs", 3)', needs=kernel_has("sysfs", 3))
    personalities = {
        "no-randomisation": 0x40000, "read-implies-execute": 0x400000, "zero-page": 0x100000, "old-memory-layout": 0x200000, "another-system": 0x6}
    for name, value in personalities.items():
        attempt(f"personality-{name}", "seccomp", f'works("personality", {value})')
    attempt("personality-with-more-bits", "seccomp", f'works("personality", {0x40000 | 1 << 32})')
    if machine == "x86_64":
        interrupt = '''
page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
page.write(bytes.fromhex("%s"))
function = ctypes.CFUNCTYPE(ctypes.c_long)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
escaped(function() == os.getpid())'''
        # mov eax, N; int 0x80 or syscall; ret
        attempt("thirty-two-bit-calls", "seccomp", interrupt % "b814000000cd80c3", needs=runs_here(interrupt % "b814000000cd80c3"))
        attempt("x32-calls", "seccomp", interrupt % "b8270000400f05c3", needs=runs_here(interrupt % "b8270000400f05c3"))


def has_capability(number):
    """Containers keep some even from root."""
    with open("/proc/self/status") as file:
        return bool(int(re.search(r"CapBnd:\s*(\w+)", file.read())[1], 16) >> number & 1)


def new_users_can_mount(host):
    """Whether an ordinary user gets a user namespace that is good for something; some systems take its privileges."""
    attempts.append(Attempt("new-user", "", 'new_user(NEWNS)\nos.mkdir("x")\nworks("mount", b"none", b"x", b"tmpfs", 0, None)', always="nothing"))
    try:
        return unconfined(host, attempts)[0]["new-user"][0]
    finally:
        attempts.clear()


def runs_here(code):
    """Whether it works on this machine, unconfined."""
    result = subprocess.run([python, "-I", "-c", prelude + code, "{}", '{"marker": ""}'], capture_output=True, text=True)
    return "ESCAPED" in result.stdout


def attempts_on_privileges(host):
    attempt("be-root", "user", 'escaped(os.getuid() == 0)', root=True)
    attempt("become-root", "", 'os.setuid(0)\nescaped()', always="an unprivileged user", without="namespaces landlock capabilities seccomp")
    attempt("become-another-user", "namespaces user capabilities", 'os.setresuid(12345, 12345, 12345)\nescaped()', root=True)
    attempt("join-a-group", "namespaces user capabilities", 'os.setgroups([12345])\nescaped()', root=True)
    attempt("join-roots-group", "user capabilities", 'os.setgroups([0])\nescaped()', root=True)
    attempt("become-a-group", "namespaces user capabilities", 'os.setresgid(12345, 12345, 12345)\nescaped()', root=True)
    attempt("have-capabilities", "user capabilities", '''
header, data = ctypes.create_string_buffer(struct.pack("II", 0x20080522, 0)), ctypes.create_string_buffer(24)
must("capget", header, data)
escaped(any(struct.unpack("6I", data.raw)[:2]))''', root=True)
    attempt("take-capabilities", "user capabilities", '''
header, data = ctypes.create_string_buffer(struct.pack("II", 0x20080522, 0)), ctypes.create_string_buffer(struct.pack("6I", 1 << 21, 1 << 21, 1 << 21, 0, 0, 0))
works("capset", header, data)''', root=True)
    attempt("keep-capabilities-for-later", "user capabilities", '''
header, data = ctypes.create_string_buffer(struct.pack("II", 0x20080522, 0)), ctypes.create_string_buffer(struct.pack("6I", 1 << 21, 1 << 21, 1 << 21, 0, 0, 0))
must("capset", header, data)
works("prctl", 47, 2, 21, 0, 0)''', root=True)
    attempt("capabilities-by-executing", "user capabilities", '''
escaped("CapEff:\\t0000000000000000" not in subprocess.run(["/bin/cat", "/proc/self/status"], capture_output=True, text=True).stdout)''', root=True)
    attempt("change-secure-bits", "user capabilities", 'works("prctl", 28, 1, 0, 0, 0)', root=True)
    attempt("change-own-memory-map", "namespaces user capabilities",
            'let_through("prctl", 35, 1, 0, 0, 0)', root=True, needs=has_capability(24))
    attempt("raise-a-limit", "namespaces user capabilities",
            'hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]\nresource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard + 1))\nescaped()',
            root=True, needs=has_capability(24))
    attempt("raise-own-priority", "namespaces user capabilities", 'os.setpriority(os.PRIO_PROCESS, 0, -10)\nescaped()', root=True)
    attempt("real-time-priority", "namespaces user capabilities",
            'os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))\nescaped()', root=True)
    attempt("forget-no-new-privileges", "",
            'works("prctl", 38, 0, 0, 0, 0)', always="no_new_privs", without="namespaces user landlock capabilities seccomp")
    attempt("have-no-no-new-privileges", "",
            'escaped(call("prctl", 39, 0, 0, 0, 0)[0] == 0)',
            always="no_new_privs", without="namespaces user landlock capabilities seccomp", outside=True)
    attempt("drop-the-filter", "", 'works("prctl", 22, 0, 0, 0, 0)', always="the kernel", without="namespaces user landlock capabilities")
    everything = "namespaces landlock capabilities seccomp limits"
    for what, answer in [("suid", "0"), ("sgid", "0")]:
        if host.get(what):
            option = "-u" if what == "suid" else "-g"
            attempt(f"run-a-{what}-program", "",
                    f'escaped(subprocess.run([host["{what}"], "{option}"], capture_output=True, text=True).stdout.strip() == "{answer}")',
                    always="no_new_privs", without=everything, outside=True)
    if host.get("capable"):
        attempt("run-a-program-with-capabilities", "",
                'escaped(marker.encode() in subprocess.run([host["capable"], host["guarded"]], capture_output=True).stdout)',
                always="no_new_privs", without=everything, outside=True)
    attempt("keys-of-the-session", "", '''
number = must("keyctl", 10, -3, b"user", host["token"].encode(), 0)
escaped()''', always="a session keyring of its own", without="namespaces landlock capabilities seccomp", outside=True,
            needs=host["key_number"] is not None and not is_root)
    attempt("search-keys", "", 'works("request_key", b"user", host["token"].encode(), 0, 0)', always="a session keyring of its own",
            without="namespaces landlock capabilities seccomp", needs=host["key_number"] is not None, outside=not is_root)
    attempt("search-keys-as-their-owner", "",
            'works("request_key", b"user", host["token"].encode(), 0, 0)', always="a session keyring of its own",
            without="namespaces user landlock capabilities seccomp", needs=host["key_number"] is not None and is_root)
    attempt("read-a-key-by-number", "user seccomp", '''
text = ctypes.create_string_buffer(100)
must("keyctl", 11, host["key_number"], text, 100)
escaped(text.value == marker.encode())''', needs=host["key_number"] is not None)
    attempt("add-a-key", "seccomp", 'works("add_key", b"user", b"x", b"x", 1, -3)', needs=host["key_number"] is not None)
    attempt("look-for-a-key", "seccomp", 'let_through("request_key", b"user", b"krux-none", 0, 0)', needs=host["key_number"] is not None)
    attempt("another-keyring", "seccomp", 'works("keyctl", 1, 0)', needs=host["key_number"] is not None)
    attempt("the-gateways-environment", "", 'escaped(marker in "".join(os.environ.values()))', always="an environment of its own",
            without="namespaces user landlock capabilities seccomp limits network", outside=True)
    attempt("inherited-descriptors", "", '''
for name in os.listdir("/proc/self/fd"):
    try:
        escaped(int(name) > 2 and marker.encode() in os.pread(int(name), 100, 0))
    except OSError as error:
        print(error)''', always="the closing of descriptors", without="namespaces user landlock capabilities seccomp limits network", outside=True)
    attempt("any-descriptors", "",
            'escaped(given)',
            always="the closing of descriptors", without="namespaces user landlock capabilities seccomp limits network", outside=True)
    attempt("inherited-input", "", 'escaped(marker.encode() in os.read(0, 100))', always="the closing of descriptors",
            without="namespaces user landlock capabilities seccomp limits network", outside=True)
    attempt("the-launchers-memory", "namespaces user landlock capabilities", '''
start = int(open("/proc/%d/maps" % launcher).readline().split("-")[0], 16)
with open("/proc/%d/mem" % launcher, "rb", buffering=0) as file:
    file.seek(start)
    escaped(len(file.read(16)) == 16)''', root=True)
    attempt("the-launchers-environment", "namespaces user capabilities",
            'open("/proc/%d/environ" % launcher, "rb").read()\nescaped()', root=True, beside="landlock")
    attempt("list-the-launchers-descriptors", "user", 'os.listdir("/proc/%d/fd" % launcher)\nescaped()', root=True)
    attempt("use-the-launchers-descriptors", "namespaces user landlock capabilities",
            'os.readlink("/proc/%d/fd/0" % launcher)\nescaped()', root=True)
    attempt("trace-the-launcher", "namespaces user landlock capabilities seccomp",
            'works("ptrace", 0x4206, launcher, 0, 0)', root=True, alone=True)


def attempts_on_processes(host):
    for who, stops in [("bystander", "namespaces user landlock capabilities seccomp"), ("neighbour", "namespaces landlock seccomp")]:
        it = f'host["{who}"]["pid"]'
        vectors = '''
here = ctypes.create_string_buffer(marker.encode(), 100)
local = ctypes.create_string_buffer(struct.pack("QQ", ctypes.addressof(here), len(marker)))
remote = ctypes.create_string_buffer(struct.pack("QQ", host["%s"]["address"], len(marker)))
''' % who
        attempt(f"trace-{who}", stops, f'works("ptrace", 0x4206, {it}, 0, 0)')
        attempt(f"copy-from-{who}", stops, vectors + f'escaped(call("process_vm_readv", {it}, local, 1, remote, 1, 0)[0] == len(marker))')
        attempt(f"copy-to-{who}", stops, vectors + f'escaped(call("process_vm_writev", {it}, local, 1, remote, 1, 0)[0] == len(marker))')
        attempt(f"take-a-descriptor-of-{who}", stops, f'''
fd = must("pidfd_getfd", os.pidfd_open({it}), host["{who}"]["descriptor"], 0)
escaped(os.pread(fd, 100, 0) == marker.encode())''', needs=kernel_has("pidfd_getfd", -1, 0, 0))
        attempt(f"compare-with-{who}", stops, f'works("kcmp", os.getpid(), {it}, 1, 0, 0)', needs=kernel_has("kcmp", 0, 0, -1, 0, 0))
        stops = stops.replace(" capabilities", "").replace(" seccomp", "")
        attempt(f"signal-{who}", stops.replace("landlock", "landlock:6"), f"os.kill({it}, signal.SIGURG)\nescaped()")
        attempt(f"signal-the-group-of-{who}", stops.replace("landlock", "landlock:6"), f"os.killpg(os.getpgid({it}), 0)\nescaped()")
        attempt(f"signal-a-thread-of-{who}", stops.replace("landlock", "landlock:6"), f'works("tgkill", {it}, {it}, signal.SIGURG)')
        attempt(f"old-signal-to-a-thread-of-{who}", stops.replace("landlock", "landlock:6"), f'works("tkill", {it}, signal.SIGURG)')
        attempt(f"signal-{who}-by-descriptor", stops.replace("landlock", "landlock:6"), f"signal.pidfd_send_signal(os.pidfd_open({it}), signal.SIGURG)\nescaped()")
        attempt(f"queue-a-signal-for-{who}", stops.replace("landlock", "landlock:6"), f'''
works("rt_sigqueueinfo", {it}, signal.SIGURG, ctypes.create_string_buffer(struct.pack("iiii", signal.SIGURG, 0, -1, 0), 128))''')
        attempt(f"hold-{who}-by-descriptor", "namespaces", f"os.pidfd_open({it})\nescaped()")
        stops = stops.replace(" landlock", "")
        attempt(f"see-the-limits-of-{who}", stops, f"resource.prlimit({it}, resource.RLIMIT_NOFILE)\nescaped()")
        stops += " capabilities" if who == "bystander" else ""
        attempt(f"slow-{who}", stops, f"os.setpriority(os.PRIO_PROCESS, {it}, 5)\nescaped()")
        attempt(f"pin-{who}", stops, f"os.sched_setaffinity({it}, os.sched_getaffinity({it}))\nescaped()")
        attempt(f"deprive-{who}-of-the-disk", stops, f'works("ioprio_set", 1, {it}, 3 << 13)')
    attempt("signal-by-a-pipe", "namespaces landlock:6", '''
reading, writing = os.pipe()
fcntl.fcntl(reading, fcntl.F_SETOWN, host["neighbour"]["pid"])
fcntl.fcntl(reading, 10, host["signal"])
fcntl.fcntl(reading, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
os.write(writing, b"x")
time.sleep(0.1)''', mark="signal")
    # With the layer `user` this reaches agents' processes alone, and asks nothing of them.
    attempt("signal-everybody", "namespaces landlock:6", "os.kill(-1, signal.SIGWINCH)\ntime.sleep(0.1)", mark="everybody", needs=is_root)
    attempt("trace-a-child", "seccomp", '''
child = os.fork()
if child == 0:
    os._exit(0 if call("ptrace", 0, 0, 0, 0)[0] == 0 else 1)
escaped(os.waitpid(child, 0)[1] == 0)''')
    attempt("shared-memory", "namespaces", '''
libc.shmat.restype = ctypes.c_void_p
address = libc.shmat(libc.shmget(host["ipc"], 0, 0), None, 0)
escaped(address != 2 ** 64 - 1 and ctypes.string_at(address, len(marker)) == marker.encode())''')
    attempt("semaphores", "namespaces", 'escaped(libc.semget(host["ipc"], 0, 0) >= 0)')
    attempt("messages", "namespaces",
            'escaped(libc.msgsnd(libc.msgget(host["ipc"], 0), ctypes.create_string_buffer(struct.pack("qb", 1, 1)), 1, 0o4000) == 0)')
    attempt("message-queues", "namespaces landlock", 'works("mq_open", host["queue"].encode(), os.O_RDWR, 0, 0)', needs=host.get("queue"))
    leaves = 'subprocess.Popen(["/bin/sleep", "4", host["mark"]], %s)\ntime.sleep(0.2)'
    attempt("survive-in-a-session", "namespaces", leaves % 'start_new_session=True, stdin=-3, stdout=-3, stderr=-3', mark="process")
    attempt("survive-as-a-daemon", "namespaces", '''
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
        os.execv("/bin/sleep", ["sleep", "4", host["mark"]])
    os._exit(0)
time.sleep(0.2)''', mark="process")
    attempt("survive-with-the-output", "namespaces", '''
subprocess.Popen(["/bin/sleep", "4", host["mark"]], stdout=output, start_new_session=True)
time.sleep(0.2)''', mark="process")
    attempt("survive-by-the-shell", "namespaces",
            'subprocess.run(["/bin/sh", "-c", "setsid nohup sleep 4 $0 >/dev/null 2>&1 &", host["mark"]])\ntime.sleep(0.2)',
            mark="process", needs=shutil.which("setsid"))
    attempt("survive-the-time-limit", "namespaces",
            leaves % 'start_new_session=True, stdin=-3, stdout=-3, stderr=-3' + '\ntime.sleep(3)', mark="process", limit=1)
    attempt("survive-the-gateway", "namespaces",
            'call("prctl", 1, 0, 0, 0, 0)\n' + leaves % 'start_new_session=True, stdin=-3, stdout=-3, stderr=-3' + '\ntime.sleep(9)',
            mark="process", killed=True)
    attempt("survive-in-a-group", "namespaces", leaves % 'process_group=0, stdin=-3, stdout=-3, stderr=-3', mark="process")


def attempts_on_namespaces(host):
    for name in ["NEWUSER", "NEWNS", "NEWCGROUP", "NEWUTS", "NEWIPC", "NEWPID", "NEWNET", "NEWTIME"]:
        plain = name[3:].lower()
        if name == "NEWUSER":
            attempt("unshare-user", "seccomp", 'works("unshare", NEWUSER)')
        else:
            attempt(f"unshare-{plain}", "user capabilities seccomp", f'works("unshare", {name})', root=True)
            attempt(f"unshare-user-and-{plain}", "seccomp", f'works("unshare", NEWUSER | {name})')
    new = '''
result = call("%s", %s)[0]
if result == 0:
    os._exit(0)
escaped(result > 0)'''
    attempt("clone-user", "seccomp", new % ("clone", "NEWUSER | signal.SIGCHLD, 0, 0, 0, 0"))
    attempt("clone-user-and-mount", "seccomp", new % ("clone", "NEWUSER | NEWNS | signal.SIGCHLD, 0, 0, 0, 0"))
    attempt("clone-network", "user capabilities seccomp", new % ("clone", "NEWNET | signal.SIGCHLD, 0, 0, 0, 0"), root=True)
    attempt("clone-user-with-more-bits", "seccomp", new % ("clone", "1 << 32 | NEWUSER | signal.SIGCHLD, 0, 0, 0, 0"))
    attempt("clone3-user", "seccomp",
            new % ("clone3", 'ctypes.create_string_buffer(struct.pack("8Q", NEWUSER, 0, 0, 0, signal.SIGCHLD, 0, 0, 0)), 64'))
    attempt("clone3-user-and-all", "seccomp",
            new % ("clone3", 'ctypes.create_string_buffer(struct.pack("8Q", NEWUSER | NEWNS | NEWPID | NEWNET | NEWIPC | NEWUTS, 0, 0, 0, signal.SIGCHLD, 0, 0, 0)), 64'))
    attempt("clone3-at-all", "seccomp",
            new % ("clone3", 'ctypes.create_string_buffer(struct.pack("8Q", 0, 0, 0, 0, signal.SIGCHLD, 0, 0, 0)), 64'))
    attempt("be-root-of-a-new-user-namespace", "landlock seccomp", '''
user = os.geteuid()
new_user()
open("/proc/self/setgroups", "w").write("deny")
open("/proc/self/uid_map", "w").write("0 %d 1" % user)
escaped(os.getuid() == 0)''')
    attempt("shell-unshare", "landlock seccomp",
            'shell("unshare -Ur sh -c \'test $(id -u) = 0 && echo %s\'" % marker)', needs=shutil.which("unshare"))
    join = "namespaces user landlock capabilities seccomp"
    for kind in ["mnt", "net", "pid", "ipc", "uts", "cgroup"]:
        attempt(f"join-{kind}", join,
                f'works("setns", os.open("/proc/%d/ns/{kind}" % host["bystander"]["pid"], os.O_RDONLY), 0)', root=True)
    attempt("join-by-a-process-descriptor", join,
            'works("setns", os.pidfd_open(host["bystander"]["pid"]), NEWNET | NEWUTS | NEWIPC)', root=True)
    attempt("join-at-all", "seccomp", 'let_through("setns", -1, 0)')

    # Mounts are made in the sandbox's own mount namespace, never in the machine's.
    inside, any_layer = "user landlock capabilities seccomp", "user capabilities seccomp"
    attempt("mount-a-tmpfs", inside, 'os.mkdir("x")\nworks("mount", b"none", b"x", b"tmpfs", 0, None)', root=True)
    attempt("mount-a-bind", inside, 'os.mkdir("x")\nworks("mount", b"/usr/bin", b"x", None, 0x1000, None)', root=True)
    attempt("mount-proc", inside, 'os.mkdir("x")\nworks("mount", b"proc", b"x", b"proc", 0, None)', root=True)
    attempt("mount-an-overlay", inside, '''
for name in ["upper", "work", "x"]:
    os.mkdir(name)
works("mount", b"none", b"x", b"overlay", 0, b"lowerdir=/usr/bin,upperdir=upper,workdir=work,userxattr")''', root=True, needs=file_system("overlay"))
    attempt("move-a-mount", inside, '''
os.mkdir("x")
os.mkdir("y")
must("mount", b"none", b"x", b"tmpfs", 0, None)
works("mount", b"x", b"y", None, 0x2000, None)''', root=True)
    attempt("share-mounts", inside, 'works("mount", None, b"/", None, 0x104000, None)', root=True, alone=True)
    attempt("remount-usr-writable", inside, '''
must("mount", b"none", b"/usr", None, 0x1020, None)
escaped(not os.statvfs("/usr").f_flag & os.ST_RDONLY)''', root=True)
    attempt("remount-a-file-of-etc-writable", inside, '''
must("mount", b"none", b"/etc/passwd", None, 0x1020, None)
escaped(not os.statvfs("/etc/passwd").f_flag & os.ST_RDONLY)''', root=True)
    attempt("remount-the-root-writable", inside, '''
must("mount", b"none", b"/", None, 0x1020, None)
escaped(not os.statvfs("/").f_flag & os.ST_RDONLY)''', root=True)
    attempt("remount-with-suid", inside, '''
must("mount", b"none", b"/opt", None, 0x1021, None)
escaped(not os.statvfs("/opt").f_flag & os.ST_NOSUID)''', root=True, needs=os.path.isdir("/opt"))
    attempt("unmount-proc", inside, 'works("umount2", b"/proc", 2)', root=True, alone=True)
    attempt("unmount-a-file-of-etc", inside, 'works("umount2", b"/etc/services", 2)', root=True, needs=os.path.exists("/etc/services"))
    attempt("unmount-the-workspace", inside, 'works("umount2", b"/workspace/sandbox", 2)', root=True, alone=True)
    attempt("turn-the-root", inside, '''
os.mkdir("x")
must("mount", b"none", b"x", b"tmpfs", 0, None)
os.chdir("x")
os.mkdir("old")
works("pivot_root", b".", b"old")''', root=True, alone=True)
    attempt("change-the-root", any_layer, 'works("chroot", b".")', root=True)
    attempt("break-out-of-a-changed-root", any_layer, '''
os.mkdir("x")
must("chroot", b"x")
for _ in range(50):
    os.chdir("..")
must("chroot", b".")
escaped(os.path.isdir("/usr"))''', root=True)
    attempt("open-a-tree", any_layer, 'works("open_tree", -100, b"/usr/bin", 1)', root=True)
    attempt("open-a-tree-by-path", "seccomp", 'works("open_tree", -100, b"/usr/bin", 0)')
    attempt("attach-a-tree", inside, '''
os.mkdir("x")
works("move_mount", must("open_tree", -100, b"/usr/bin", 1), b"", -100, b"x", 4)''', root=True)
    attempt("open-a-file-system", any_layer, 'works("fsopen", b"tmpfs", 0)', root=True)
    attempt("pick-a-file-system", any_layer, 'works("fspick", -100, b"/tmp", 0)', root=True)
    attempt("set-mount-attributes", any_layer, '''
must("mount_setattr", -100, b"/usr", 0, ctypes.create_string_buffer(struct.pack("4Q", 0, 1, 0, 0)), 32)
escaped(not os.statvfs("/usr").f_flag & os.ST_RDONLY)''', root=True)
    own = "landlock seccomp"
    attempt("mount-a-tmpfs-as-a-new-user", own, 'new_user(NEWNS)\nos.mkdir("x")\nworks("mount", b"none", b"x", b"tmpfs", 0, None)')
    attempt("mount-a-bind-as-a-new-user", own, 'new_user(NEWNS)\nos.mkdir("x")\nworks("mount", b"/usr/bin", b"x", None, 0x5000, None)')
    attempt("mount-an-overlay-as-a-new-user", own, '''
for name in ["upper", "work", "x"]:
    os.mkdir(name)
new_user(NEWNS, mapped=True)
works("mount", b"none", b"x", b"overlay", 0, b"lowerdir=/usr/bin,upperdir=upper,workdir=work,userxattr")''', needs=file_system("overlay"))
    attempt("mount-sysfs-as-a-new-user", "namespaces landlock seccomp",
            'new_user(NEWNS | NEWNET)\nos.mkdir("x")\nworks("mount", b"sysfs", b"x", b"sysfs", 0, None)')
    attempt("mount-proc-as-a-new-user", own, '''
os.mkdir("x")
new_user(NEWNS | NEWPID)
escaped(forks(lambda: must("mount", b"proc", b"x", b"proc", 0, None)))''')
    attempt("open-a-file-system-as-a-new-user", "seccomp", 'new_user(NEWNS)\nworks("fsopen", b"tmpfs", 0)')
    attempt("open-a-tree-as-a-new-user", "seccomp", 'new_user(NEWNS)\nworks("open_tree", -100, b"/usr/bin", 0x8001)')
    attempt("turn-the-root-as-a-new-user", own, '''
new_user(NEWNS)
os.mkdir("x")
must("mount", b"none", b"x", b"tmpfs", 0, None)
must("pivot_root", b"x", b"x")
escaped()''')
    attempt("change-the-root-as-a-new-user", "seccomp", 'new_user()\nworks("chroot", b".")')
    attempt("raw-packets-as-a-new-user", "seccomp", 'new_user(NEWNET)\nsocket.socket(socket.AF_INET, socket.SOCK_RAW, 1)\nescaped()')
    attempt("filter-packets-as-a-new-user", "seccomp",
            'new_user(NEWNET)\nsocket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)\nescaped()',
            needs=can_open_socket(socket.AF_NETLINK, socket.SOCK_RAW, 12))
    attempt("remount-usr-writable-as-a-new-user", "", '''
new_user(NEWNS)
must("mount", b"none", b"/usr", None, 0x1020, None)
escaped(not os.statvfs("/usr").f_flag & os.ST_RDONLY)''', always="the lock on inherited mounts", without="landlock capabilities seccomp")
    attempt("set-mount-attributes-as-a-new-user", "", '''
new_user(NEWNS)
must("mount_setattr", -100, b"/usr", 0, ctypes.create_string_buffer(struct.pack("4Q", 0, 1, 0, 0)), 32)
escaped()''', always="the lock on inherited mounts", without="landlock capabilities seccomp")
    attempt("unmount-as-a-new-user", "",
            'new_user(NEWNS)\nworks("umount2", b"/tmp", 2)', always="the lock on inherited mounts", without="landlock capabilities seccomp")
    attempt("mount-control-groups", "namespaces user landlock capabilities seccomp", '''
must("unshare", NEWNS)
must("mount", None, b"/", None, 0x44000, None)
os.mkdir("x")
works("mount", b"none", b"x", b"cgroup2", 0, None)''', root=True, needs=file_system("cgroup2"))


def file_system(name):
    with open("/proc/filesystems") as file:
        return any(line.split()[-1] == name for line in file)


def attempts_on_the_network(host):
    attempt("unix-socket", "namespaces", 'talks(socket.AF_UNIX, socket.SOCK_STREAM, host["socket"])')
    attempt("unix-datagrams", "namespaces", 'escaped(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b"x", host["datagrams"]))')
    attempt("unix-socket-of-the-gate", "namespaces user", 'talks(socket.AF_UNIX, socket.SOCK_STREAM, host["gate"])')
    attempt("unix-socket-by-own-root-link", "namespaces", 'talks(socket.AF_UNIX, socket.SOCK_STREAM, "/proc/self/root" + host["socket"])')
    attempt("unix-socket-by-a-symbolic-link", "namespaces",
            'os.symlink(host["socket"], "s")\ntalks(socket.AF_UNIX, socket.SOCK_STREAM, "s")')
    attempt("unix-socket-of-the-first-process", "namespaces",
            'talks(socket.AF_UNIX, socket.SOCK_STREAM, "/proc/self/cwd/" + "../" * 20 + host["socket"][1:])',
            needs=len(host["socket"]) < 30)
    attempt("abstract-socket", "network landlock:6", 'talks(socket.AF_UNIX, socket.SOCK_STREAM, chr(0) + host["token"])')
    attempt("abstract-datagrams", "network landlock:6",
            'escaped(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b"x", chr(0) + host["token"] + ".d"))')
    stops = "network landlock:4"
    attempt("tcp", stops, 'talks(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", host["tcp"]))')
    attempt("tcp-to-nowhere", stops, 'talks(socket.AF_INET, socket.SOCK_STREAM, ("0.0.0.0", host["tcp"]))')
    attempt("tcp-to-another-loopback-address", stops, 'talks(socket.AF_INET, socket.SOCK_STREAM, ("127.1.2.3", host["tcp"]))')
    attempt("tcp-to-the-machines-address", stops,
            'talks(socket.AF_INET, socket.SOCK_STREAM, (host["address"], host["tcp"]))', needs=host["address"])
    attempt("tcp6", stops, 'talks(socket.AF_INET6, socket.SOCK_STREAM, ("::1", host["tcp6"]))', needs=host["tcp6"])
    attempt("tcp-by-a-mapped-address", stops,
            'talks(socket.AF_INET6, socket.SOCK_STREAM, ("::ffff:127.0.0.1", host["tcp"]))', needs=host["tcp6"])
    attempt("tcp-without-waiting", stops, '''
connection = socket.socket()
connection.setblocking(False)
connection.connect_ex(("127.0.0.1", host["tcp"]))
select.select([], [connection], [], 2)
says(connection)''')
    attempt("tcp-by-name", stops, 'talks(socket.AF_INET, socket.SOCK_STREAM, ("localhost", host["tcp"]))')
    # Landlock looks at connect(2) of TCP, and at nothing else.
    attempt("tcp-in-one-go", "network", '''
connection = socket.socket()
connection.settimeout(2)
try:
    connection.sendto(b"x", socket.MSG_FASTOPEN, ("127.0.0.1", host["tcp"]))
except BlockingIOError:
    pass
select.select([connection], [], [], 3)
escaped(connection.recv(100) == marker.encode())''', needs=(setting("net/ipv4/tcp_fastopen") or 0) & 1)
    attempt("tcp-by-several-paths", "network",
            'talks(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", host["tcp"]), 262)',
            needs=can_open_socket(socket.AF_INET, socket.SOCK_STREAM, 262))
    attempt("serve-on-a-chosen-port", "network landlock:4",
            's = socket.socket()\ns.bind(("127.0.0.1", 40000 + host["turn"] % 20000))\nescaped(is_the_machines("net"))')
    attempt("serve-on-some-port", "network", 's = socket.socket()\ns.listen()\nescaped(is_the_machines("net"))')
    attempt("udp", "network", 'talks(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", host["udp"]))')
    attempt("udp6", "network", 'talks(socket.AF_INET6, socket.SOCK_DGRAM, ("::1", host["udp6"]))', needs=host["udp6"])
    attempt("ask-a-name-server", "network", '''
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.connect(("127.0.0.1", host["udp"]))
says(server, bytes.fromhex("123401000001000000000000") + b"\\x06secret\\x05krux0\\x07invalid\\x00\\x00\\x01\\x00\\x01")''')
    attempt("a-route-to-the-outside", "network",
            'socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(("192.0.2.1", 9))\nescaped()', needs=host["address"])
    attempt("list-interfaces", "network", 'escaped(len(socket.if_nameindex()) > 1)', needs=len(socket.if_nameindex()) > 1)
    attempt("list-open-ports", "network", 'escaped(":%04X" % host["tcp"] in open("/proc/net/tcp").read())')
    attempt("list-unix-sockets", "network", 'escaped(host["token"] in open("/proc/net/unix").read())')
    attempt("ask-for-sockets", "network seccomp", '''
asking = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 4)
asking.settimeout(2)
asking.send(struct.pack("IHHII", 72, 20, 0x301, 1, 0) + struct.pack("BBBBI", 2, 6, 0, 0, 0xFFF) + bytes(48))
found = b""
while not (len(found) >= 20 and struct.unpack("IH", found[:6])[1] == 3):
    found = asking.recv(65536)
    escaped(struct.pack(">H", host["tcp"]) in found)
    if struct.unpack("IH", found[:6])[1] in (2, 3):
        break''', needs=can_open_socket(socket.AF_NETLINK, socket.SOCK_RAW, 4))
    attempt("raw-packets", "namespaces user capabilities",
            'socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)\nescaped(is_the_machines("net"))', root=True)
    attempt("raw-packets-of-its-own-network", "user capabilities",
            'socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)\nescaped()', root=True)
    attempt("link-layer-packets", "namespaces user capabilities seccomp",
            'socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0x300)\nescaped(is_the_machines("net"))',
            root=True, needs=can_open_socket(socket.AF_PACKET, socket.SOCK_RAW))
    attempt("packets-as-a-new-user", "seccomp",
            'new_user(NEWNET)\nsocket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0x300)\nescaped()',
            needs=can_open_socket(socket.AF_PACKET, socket.SOCK_RAW) or not is_root)
    attempt("set-an-interface", "namespaces user capabilities", '''
asking = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
asking.settimeout(2)
asking.send(struct.pack("IHHII", 32, 16, 5, 1, 0) + struct.pack("BBHiII", 0, 0, 0, 999999, 0, 0))
code = struct.unpack("i", asking.recv(100)[16:20])[0]
print(code)
escaped(code != -errno.EPERM and is_the_machines("net"))''', root=True)
    attempt("a-low-port", "namespaces user capabilities",
            's = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ns.bind(("127.0.0.1", 1 + host["turn"] % 20))\nescaped(is_the_machines("net"))',
            root=True, needs=(setting("net/ipv4/ip_unprivileged_port_start") or 1024) > 30)
    families = {
        "AF_KEY": 15, "AF_ALG": 38, "AF_VSOCK": 40, "AF_TIPC": 30, "AF_BLUETOOTH": 31, "AF_CAN": 29, "AF_RDS": 21, "AF_APPLETALK": 5, "AF_X25": 9,
        "AF_LLC": 26, "AF_PPPOX": 24, "AF_NFC": 39, "AF_XDP": 44, "AF_SMC": 43, "AF_QIPCRTR": 42, "AF_KCM": 41, "AF_PHONET": 35,
        "AF_IEEE802154": 36, "AF_ISDN": 34, "AF_RXRPC": 33, "AF_AX25": 3, "AF_IPX": 4}
    for name, family in families.items():
        # Raw ones are root's, wherever they can be had.
        kinds = [kind for kind in ((1, 2, 5) if is_root else (1, 2, 3, 5)) if can_open_socket(family, kind)]
        attempt(f"socket-{name[3:].lower()}", "seccomp", f"works('socket', {family}, {(kinds or [1])[0]}, 0)", needs=kinds)
        if name == "AF_VSOCK":
            attempt("socket-vsock-with-more-bits", "seccomp", f"works('socket', {family | 1 << 32}, {(kinds or [1])[0]}, 0)", needs=kinds)
    kinds = {
        "usersock": 2, "sock-diag": 4, "xfrm": 6, "selinux": 7, "iscsi": 8, "audit": 9, "fib": 10, "connector": 11, "netfilter": 12, "uevent": 15,
        "generic": 16, "scsi": 18, "crypto": 21}
    for name, kind in kinds.items():
        attempt(f"netlink-{name}", "seccomp",
                f"works('socket', 16, 3, {kind})", needs=can_open_socket(socket.AF_NETLINK, socket.SOCK_RAW, kind))
    attempt("netlink-with-more-bits", "seccomp", f"works('socket', 16, 3, {16 | 1 << 32})")


def attempts_to_use_everything_up(host):
    hard = resource.getrlimit
    attempt("many-processes", "limits", '''
started = []
try:
    while len(started) < 1100:
        child = os.fork()
        if child == 0:
            signal.pause()
        started.append(child)
finally:
    print(len(started))
    for child in started:
        os.kill(child, signal.SIGKILL)
    for child in started:
        os.waitpid(child, 0)
escaped(len(started) > 1024)''', alone=True, needs=hard(resource.RLIMIT_NPROC)[0] == -1 or hard(resource.RLIMIT_NPROC)[0] > 2500)
    attempt("many-threads", "limits", '''
threading.stack_size(65536)
done, started = threading.Event(), []
try:
    while len(started) < 1100:
        thread = threading.Thread(target=done.wait, daemon=True)
        thread.start()
        started.append(thread)
finally:
    print(len(started))
    done.set()
escaped(len(started) > 1024)''', alone=True, needs=hard(resource.RLIMIT_NPROC)[0] == -1 or hard(resource.RLIMIT_NPROC)[0] > 2500)
    attempt("a-huge-file", "limits", 'fd = os.open("x", os.O_CREAT | os.O_RDWR)\nos.ftruncate(fd, 5 << 30)\nescaped()')
    attempt("a-huge-file-by-a-late-write", "limits", '''
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
fd = os.open("x", os.O_CREAT | os.O_RDWR)
escaped(os.pwrite(fd, b"x", 5 << 30) == 1)''')
    attempt("a-huge-file-by-its-name", "limits",
            'signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\nopen("x", "w").close()\nos.truncate("x", 5 << 30)\nescaped()')
    attempt("a-huge-file-in-memory", "limits",
            'signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\nos.ftruncate(os.memfd_create("x"), 5 << 30)\nescaped()')
    attempt("much-memory", "limits", 'mmap.mmap(-1, 17 << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000, prot=0)\nescaped()')
    attempt("much-memory-piece-by-piece", "limits",
            'pieces = [mmap.mmap(-1, 1 << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000, prot=0) for _ in range(18)]\nescaped()')
    attempt("locked-memory", "limits",
            'page = mmap.mmap(-1, 1 << 20)\nescaped(libc.mlock(ctypes.byref(ctypes.c_char.from_buffer(page)), 1 << 20) == 0)',
            needs=hard(resource.RLIMIT_MEMLOCK)[0] == -1 or hard(resource.RLIMIT_MEMLOCK)[0] > 1 << 20)
    attempt("many-open-files", "limits", '''
limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
files = [os.open("/dev/null", os.O_RDONLY) for _ in range(1100)]
escaped()''', needs=hard(resource.RLIMIT_NOFILE)[1] > 1200)
    attempt("a-core-dump", "limits", '''
resource.setrlimit(resource.RLIMIT_CORE, (1 << 20, 1 << 20))
escaped()''', needs=hard(resource.RLIMIT_CORE)[1] == -1 or hard(resource.RLIMIT_CORE)[1] > 1 << 20)
    attempt("endless-computing", "limits",
            'resource.setrlimit(resource.RLIMIT_CPU, (1 << 20, resource.getrlimit(resource.RLIMIT_CPU)[1]))\nescaped()',
            needs=hard(resource.RLIMIT_CPU)[1] == -1)


# MARK: Running them

turns, turn_lock, signals_lock = iter(range(1, 1 << 30)), threading.Lock(), threading.Lock()


def environment():
    return {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "HOME": scratch, "TMPDIR": f"{scratch}/tmp", "LANG": "C.UTF-8", "KRUX_SECRET": marker}


def program(host, batch, extra):
    """The command that makes a batch of attempts."""
    with turn_lock:
        turn = next(turns)
    for name in ["gone", "taken", "exchanged"]:
        put(f"{host['drop']}/{name}-{turn}", mode=0o666)
        os.chmod(f"{host['drop']}", 0o777)
    told = {**host, "turn": turn, **extra}
    arguments = [python, "-I", "-S", "-c", driver, json.dumps(numbers), json.dumps(told)]
    for one in batch:
        arguments += [one.name, one.code]
    return arguments


def execute(command, terminal=False, **options):
    """What a command says, with the marker on its standard input and in a descriptor that it inherits."""
    options |= {"capture_output": True, "text": True, "timeout": 120, "env": environment()}
    if terminal:
        own, inner = pty.openpty()
        try:
            return subprocess.run(["setsid", "--ctty", "--wait", *command], stdin=inner, **options)
        finally:
            os.close(own)
            os.close(inner)
    with open(f"{scratch}/outside/secret") as inherited, open(f"{scratch}/outside/public") as given:
        return subprocess.run(command, stdin=given, pass_fds=[inherited.fileno()], **options)


def answers(result):
    found = {}
    for line in result.stdout.splitlines():
        parts = line.split("\t")
        if len(parts) >= 2 and parts[1] in ("ESCAPED", "held"):
            found[parts[0]] = (parts[1] == "ESCAPED", parts[2] if len(parts) > 2 else "")
    return found


def marked(mark):
    found = []
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            with open(path, "rb") as file:
                if mark.encode() in file.read().split(b"\0") and open(path[:-7] + "comm").read() == "sleep\n":
                    found.append(int(path.split("/")[2]))
        except OSError:
            pass
    return found


def noted(number):
    with open(f"{scratch}/neighbour.signals") as file:
        return file.read().split().count(str(number))


def execute_and_kill(command, mark):
    """Kills it as soon as what it starts is there."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())
    deadline = time.monotonic() + 20
    while not marked(mark) and time.monotonic() < deadline:
        time.sleep(0.02)
    there = marked(mark)
    process.kill()
    output, errors = process.communicate(timeout=60)
    return subprocess.CompletedProcess(command, process.returncode, output, errors if there else "it started nothing")


def leaves_a_process(one, command, number):
    """Runs it and tells whether what it starts is still there, and whether it ran at all."""
    mark = f"0.{int(token[4:12], 16) * 1000 + number}"
    if one.killed:
        result = execute_and_kill(command({"mark": mark}), mark)
        ran = "started nothing" not in result.stderr
    else:
        result = execute(command({"mark": mark}))
        ran = one.name in answers(result) or one.limit < 60 and "longer than" in result.stderr
    time.sleep(0.3)
    left = marked(mark)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    return result, bool(left), ran


def sends_a_signal(one, command, number):
    """Runs it and tells whether the neighbour got the signal, and whether it ran at all."""
    chosen = signal.SIGRTMIN + 1 + number % 25 if one.mark == "signal" else signal.SIGWINCH
    with signals_lock:
        before = noted(chosen)
        result = execute(command({"signal": int(chosen)}))
        time.sleep(0.2)
        return result, noted(chosen) > before, one.name in answers(result)


def sandboxed(host, batch, omitted, number):
    """Answers of a batch, by name, and what went to standard error."""
    first = batch[0]
    options = ["--home", first.home or host["home"], "--files", first.files, "--timeout", str(first.limit)]
    options += [word for layer in omitted for word in ("--without", layer)]

    def command(extra):
        return [kruxos, "sandbox", "run", *options, "--", *program(host, batch, extra)]

    if first.mark is None:
        result = execute(command({}), first.terminal)
        return answers(result), result.stderr
    result, there, ran = (leaves_a_process if first.mark == "process" else sends_a_signal)(first, command, number)
    said = answers(result).get(first.name, (False, ""))[1]
    return {first.name: (there, said)} if ran else {}, result.stderr


def unconfined(host, batch):
    place = tempfile.mkdtemp(dir=scratch)
    options = {"cwd": place}
    if is_root:
        os.chown(place, agents_user, agents_user)
        options |= {"user": agents_user, "group": agents_user, "extra_groups": []}
    result = execute(program(host, batch, {}), batch[0].terminal, **options)
    return answers(result), result.stderr


def plan():
    """Batches of attempts that share a start: (layers left out, attempts, [(what it shows, whether it succeeds)])."""
    shared, single = {}, []
    for one in attempts:
        for shows, omitted, expected in one.runs():
            if one.alone:
                single.append((omitted, [one], [(shows, expected)]))
            else:
                names, results = shared.setdefault((omitted, one.files, one.home), ([], []))
                names.append(one)
                results.append((shows, expected))
    batches = [(omitted, names, results) for (omitted, _, _), (names, results) in shared.items()]
    return single + batches


def judge(batch, results, found, errors):
    wrong = []
    for one, (shows, expected) in zip(batch, results):
        if one.name not in found:
            wrong.append(f"{one.name}: {shows}: no answer: {errors[-300:]}")
        elif found[one.name][0] != expected:
            wrong.append(f"{one.name}: {shows}: {'it does not try' if expected else 'ESCAPED'}: {found[one.name][1]}")
    return wrong


def main(host):
    global new_users_work
    new_users_work = new_users_can_mount(host)
    for table in [
            attempts_to_read, attempts_to_write, attempts_on_devices, attempts_on_the_kernel, attempts_on_privileges, attempts_on_processes,
            attempts_on_namespaces, attempts_on_the_network, attempts_to_use_everything_up]:
        table(host)
    chosen = os.environ.get("ONLY")
    if chosen:
        attempts[:] = [one for one in attempts if re.search(chosen, one.name)]
    runs, wrong = 0, []
    with concurrent.futures.ThreadPoolExecutor(max(2, os.cpu_count() or 2)) as pool:
        waiting = []
        for number, (omitted, batch, results) in enumerate(plan()):
            waiting.append((batch, results, pool.submit(sandboxed, host, batch, omitted, number)))
        for terminal in (False, True):
            batch = [one for one in attempts if one.outside and one.terminal == terminal]
            if batch:
                waiting.append((batch, [("outside", True)] * len(batch), pool.submit(unconfined, host, batch)))
        for batch, results, answer in waiting:
            runs += len(batch)
            wrong += judge(batch, results, *answer.result())
    for line in wrong:
        print(line)
    if absent:
        print(f"{len(absent)} not here: {' '.join(absent)}")
    if wrong:
        print(f"escapes: {len(attempts)} attempts, {runs} runs, {len(wrong)} wrong")
    else:
        print(f"escapes: {len(attempts)} attempts, {runs} runs, none out, every layer alone")
    return 1 if wrong else 0


def privileged_programs(host_programs):
    """What root alone can set up: programs that give privileges to who runs them."""
    if os.statvfs(scratch).f_flag & os.ST_NOSUID:
        return
    host_programs["suid"] = privileged_program("/usr/bin/id", "suid", 0o4755)
    host_programs["sgid"] = privileged_program("/usr/bin/id", "sgid", 0o2755)
    host_programs["guarded"] = put(f"{scratch}/guarded", mode=0o600)
    try:
        host_programs["capable"] = privileged_program("/bin/cat", "capable", capabilities=1 << 1)
    except OSError:
        pass


# Whatever started this may have blocked signals, and what is started here would do the same.
signal.pthread_sigmask(signal.SIG_SETMASK, [])
os.umask(0o022)
os.makedirs(folder, exist_ok=True)
scratch = tempfile.mkdtemp(prefix="e", dir=folder)
os.chmod(scratch, 0o755)
host_programs = {}
code = 1
try:
    for kind, least in [(resource.RLIMIT_NOFILE, 4096), (resource.RLIMIT_CORE, 1 << 21)]:
        hard = resource.getrlimit(kind)[1]
        resource.setrlimit(kind, (hard if 0 <= hard < least else least, hard))
    if os.geteuid() == 0:
        privileged_programs(host_programs)
    child = os.fork()
    if child == 0:
        try:
            below = mount_below_usr() if os.geteuid() == 0 else None
            if len(sys.argv) > 3 and os.geteuid() == 0:
                become(sys.argv[3])
            is_root = os.geteuid() == 0
            answer = subprocess.run([kruxos, "sandbox", "diagnose", "--json"], capture_output=True, text=True, env=environment() | {"TMPDIR": "/tmp"})
            diagnosis = json.loads(answer.stdout)
            layers, abi = [layer["layer"] for layer in diagnosis["layers"]], diagnosis["landlock_abi"]
            assert diagnosis["confines"], diagnosis
            try:
                code = main(set_up() | host_programs)
            finally:
                tear_down()
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
finally:
    shutil.rmtree(scratch, ignore_errors=True)
sys.exit(code)
