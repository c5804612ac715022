/* The launcher that confines every process an agent starts.
 *
 * It is C because it runs where Swift cannot: in a single-threaded process, forked before the Swift runtime starts a
 * thread (the zygote), between clone and exec. The zygote holds no secret and no descriptor but its socket.
 *
 * One launch, in order. Each step that fails ends the launch and is reported by name:
 *   clone      new user, mount, pid, net, ipc and uts namespaces
 *   identity   the caller's uid and gid, alone, mapped to themselves; a root gateway's child becomes the agents' user
 *   root       a new root of read-only system directories, a private /tmp and /dev, and the workspace
 *   limits     resource limits
 *   landlock   write below the workspace and /tmp only, read below the new root only; TCP, signals and abstract
 *              sockets where the kernel's ABI has them
 *   privileges no_new_privs, every capability dropped
 *   seccomp    an allow-list of system calls
 *   exec       the program
 */
#ifndef KRUX_CSANDBOX_H
#define KRUX_CSANDBOX_H

#include "cspawn.h"

#include <stddef.h>
#include <stdint.h>

enum krux_step {
    KRUX_STEP_NONE = 0,
    KRUX_STEP_CLONE,
    KRUX_STEP_IDENTITY,
    KRUX_STEP_ROOT,
    KRUX_STEP_LIMITS,
    KRUX_STEP_LANDLOCK,
    KRUX_STEP_PRIVILEGES,
    KRUX_STEP_DIRECTORY,
    KRUX_STEP_EXEC,
    KRUX_STEP_SECCOMP,
    KRUX_STEP_NETWORK,
    KRUX_STEP_FILES, /* nothing that is left would keep it from the gate's own files */
};

/* What holds a process, each by itself. no_new_privs and an empty session keyring always do. */
enum krux_layer {
    KRUX_LAYER_NAMESPACES = 1 << 0,   /* user, mount, pid, ipc, uts, and with them the private root */
    KRUX_LAYER_NETWORK = 1 << 1,      /* a network namespace */
    KRUX_LAYER_LANDLOCK = 1 << 2,
    KRUX_LAYER_SECCOMP = 1 << 3,
    KRUX_LAYER_CAPABILITIES = 1 << 4,
    KRUX_LAYER_LIMITS = 1 << 5,
    KRUX_LAYER_USER = 1 << 6,         /* another user than a root gateway's */
    KRUX_LAYER_CGROUP = 1 << 7,       /* limits on all processes of an agent, where the machine lets the gateway set them */
};

/* What a process may do to files. */
enum krux_files {
    KRUX_READ_ONLY = 0,       /* everything it sees is read-only but /tmp */
    KRUX_WORKSPACE_WRITE = 1, /* the workspace and writable mounts may be written */
    KRUX_FULL_ACCESS = 2,     /* the machine as the agents' user sees it, with its network, without KRUXOS_HOME */
};

/* What a launch without namespaces is ended with, instead of SIGKILL: it takes everything it started along. */
enum { KRUX_SIGNAL_END = 40 };

enum { KRUX_MOST_MOUNTS = 32, KRUX_PROXY_PORT = 3128 };

/* What comes back on the status descriptor: one when the program has been started, or could not be, and one when it has
 * ended; end of file alone when the process was killed. */
struct krux_report {
    uint32_t step;       /* enum krux_step that failed; KRUX_STEP_NONE for none */
    int32_t error;       /* errno of the failed step */
    int32_t wait_status; /* as waitpid gives it, in the second report */
    uint32_t layers;     /* enum krux_layer that hold */
    uint32_t landlock_abi;
    uint32_t ended;      /* whether this is the second */
};

struct krux_limits {
    uint64_t cpu_seconds;
    uint64_t file_bytes;
    uint64_t open_files;
    uint64_t processes;
    uint64_t address_space;
    uint64_t tmp_bytes;
};

/* A launch. Strings end with NUL, lists with a null pointer. */
struct krux_launch {
    const char *const *arguments; /* [0] is looked for in krux_search_path() unless it has a slash */
    const char *const *environment;
    const char *workspace; /* absolute path in the new root where the workspace is seen */
    const char *directory; /* the working directory: relative to the workspace, empty for itself; absolute in a mount */
    const char *home;      /* KRUXOS_HOME without links, which is covered wherever it would show; empty for none */
    const char *const *mounts;  /* "rw/mnt/label" or "ro/mnt/label", one for each of mount_fds */
    const char *const *protect; /* relative to the workspace: read-only where they are there */
    struct krux_limits limits;
    uint32_t files;    /* enum krux_files */
    uint32_t optional; /* layers that a machine need not have */
    uint32_t omit;     /* layers that are left out, to look at the others alone */
    uint32_t uid;      /* the agents' user and group, where the gateway is root; else 0 */
    uint32_t root;     /* set by the launcher: the private root was built */
    int workspace_fd;  /* O_PATH directory */
    int stdout_fd;
    int stderr_fd;
    int status_fd;
    int cgroup_fd; /* the folder of a cgroup v2 group that it is started in; -1 for the gateway's own */
    int proxy_fd; /* a SOCK_SEQPACKET socket that gets each connection to KRUX_PROXY_PORT; -1 for no network */
    int mount_fds[KRUX_MOST_MOUNTS];
};

/* Starts the zygote, once per process. A constructor does it before main for `kruxos serve` and `kruxos call`.
 * Returns 0 or a negative errno. */
int krux_zygote_start(void);

/* Launches; the descriptors stay the caller's. Not for two threads at once. Returns a pidfd (the caller closes it) or
 * a negative errno. */
int krux_zygote_launch(const struct krux_launch *launch);

/* Where names of programs are looked for in the new root. */
const char *krux_search_path(void);

/* The kernel's Landlock ABI; 0 when it has none. */
int krux_landlock_abi(void);

/* Sends a signal through a pidfd. Returns 0 or a negative errno. */
int krux_pidfd_signal(int pidfd, int signal);

/* openat2(2), which glibc does not wrap. `resolve` takes RESOLVE_* bits. Returns a descriptor or a negative errno. */
int krux_openat2(int directory, const char *path, uint64_t flags, uint64_t mode, uint64_t resolve);

/* The next descriptor handed over on a socket such as `proxy_fd`'s other end, or a negative errno; -EPIPE at the end. */
int krux_receive_descriptor(int socket);

/* pipe2(2) with O_CLOEXEC. Returns 0 or a negative errno. */
int krux_pipe(int ends[2]);

/* memmem(3): where `part` first is in `text`; null where it is not. */
const void *krux_memmem(const void *text, size_t size, const void *part, size_t length);

/* Gives `to` the extended attributes of `from` that a user may set, access lists among them, as far as its file system
 * keeps them. Returns how many it does not keep, or a negative errno. */
int krux_copy_attributes(int from, int to);

/* Whether a descriptor is on a file system that holds files, unlike proc, sysfs and their kind. 1, 0 or a negative
 * errno. */
int krux_holds_files(int descriptor);

/* syncfs(2) of the file system that a directory is on, which may be an O_PATH descriptor. Returns 0 or a negative
 * errno. */
int krux_sync(int directory);

/* renameat2(2) with flags. Returns 0 or a negative errno. */
int krux_renameat2(int from_directory, const char *from, int to_directory, const char *to, unsigned int flags);

#endif
