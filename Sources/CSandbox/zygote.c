/* The zygote: waits for launches on a socket, clones a confined process for each, passes a pidfd back. */
#define _GNU_SOURCE
#include "csandbox.h"
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static int zygote_socket = -1;
static pid_t zygote_owner = 0;

/* Launch, workspace, output, error, status; then the group's folder and the proxy's socket if there are any, then mounts. */
enum { LAUNCH_FDS = 5, MOST_FDS = LAUNCH_FDS + 2 + KRUX_MOST_MOUNTS, MAX_STRINGS = 1 << 14 };

/* A launch on the wire is a memfd: what is no text, the lists' counts, then the strings one after the other, each with its
 * NUL: workspace, directory, home, and the lists. */
enum { SINGLES = 3, LISTS = 4 };
struct wire_header {
    struct krux_limits limits;
    uint32_t files, optional, omit, uid, has_cgroup, has_proxy;
    uint32_t counts[LISTS]; /* arguments, environment, mounts, protect */
    uint64_t bytes;
};

static const char *const *const *list_of(const struct krux_launch *launch, int index) {
    const char *const *const *lists[LISTS] = {
        &launch->arguments, &launch->environment, &launch->mounts, &launch->protect};
    return lists[index];
}

static void close_from(int first, int keep) {
    if (keep < first) {
        syscall(SYS_close_range, first, ~0U, 0);
        return;
    }
    if (keep > first) syscall(SYS_close_range, first, keep - 1, 0);
    syscall(SYS_close_range, keep + 1, ~0U, 0);
}

static int write_all(int fd, const void *data, size_t size) {
    const char *bytes = data;
    while (size > 0) {
        ssize_t count = write(fd, bytes, size);
        if (count < 0) {
            if (errno == EINTR) continue;
            return -errno;
        }
        bytes += count;
        size -= (size_t)count;
    }
    return 0;
}

static int send_message(int socket, int32_t value, const int *fds, int count) {
    struct iovec data = {&value, sizeof value};
    char control[CMSG_SPACE(sizeof(int) * MOST_FDS)];
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1};
    memset(control, 0, sizeof control);
    if (count > 0) {
        message.msg_control = control;
        message.msg_controllen = CMSG_SPACE(sizeof(int) * count);
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof(int) * count);
        memcpy(CMSG_DATA(header), fds, sizeof(int) * count);
    }
    while (sendmsg(socket, &message, MSG_NOSIGNAL) < 0)
        if (errno != EINTR) return -errno;
    return 0;
}

/* Returns the number of descriptors received, or a negative errno; -EPIPE at the end. */
static int receive_message(int socket, int32_t *value, int *fds, int capacity) {
    struct iovec data = {value, sizeof *value};
    char control[CMSG_SPACE(sizeof(int) * MOST_FDS)];
    struct msghdr message = {
        .msg_iov = &data, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    ssize_t count;
    while ((count = recvmsg(socket, &message, MSG_CMSG_CLOEXEC)) < 0)
        if (errno != EINTR) return -errno;
    if (count == 0) return -EPIPE;
    int received = 0;
    for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header; header = CMSG_NXTHDR(&message, header)) {
        if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
        int amount = (int)((header->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        for (int index = 0; index < amount; index++) {
            int fd;
            memcpy(&fd, CMSG_DATA(header) + index * sizeof(int), sizeof fd);
            if (received < capacity)
                fds[received++] = fd;
            else
                close(fd);
        }
    }
    return count == (ssize_t)sizeof *value ? received : -EPROTO;
}

int krux_receive_descriptor(int socket) {
    int32_t value;
    int fd = -1;
    int count = receive_message(socket, &value, &fd, 1);
    return count < 0 ? count : count == 1 ? fd : -EPROTO;
}

/* A launch as it was read, to be given back once the clone has its own copy. */
struct held {
    void *base;
    size_t size;
    const char **list;
};

/* Reads a launch out of its memfd. */
static int read_launch(int memory, struct krux_launch *launch, struct held *held) {
    struct stat status;
    if (fstat(memory, &status) < 0) return -errno;
    if ((size_t)status.st_size < sizeof(struct wire_header)) return -EPROTO;
    char *base = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, memory, 0);
    if (base == MAP_FAILED) return -errno;
    held->base = base;
    held->size = (size_t)status.st_size;
    const struct wire_header *header = (const void *)base;
    if (header->bytes != (uint64_t)status.st_size - sizeof *header || base[status.st_size - 1] != 0) return -EPROTO;
    size_t total = SINGLES + LISTS;
    for (int index = 0; index < LISTS; index++) {
        if (header->counts[index] > MAX_STRINGS) return -EPROTO;
        total += header->counts[index];
    }
    if (header->counts[0] == 0 || header->counts[2] > KRUX_MOST_MOUNTS) return -EPROTO;
    const char **list = calloc(total, sizeof *list);
    if (!list) return -ENOMEM;
    held->list = list;
    const char *cursor = base + sizeof *header, *end = base + status.st_size;
    const char **singles[SINGLES] = {&launch->workspace, &launch->directory, &launch->home};
    for (int index = 0; index < SINGLES; index++) {
        if (cursor >= end) return -EPROTO;
        *singles[index] = cursor;
        cursor += strlen(cursor) + 1;
    }
    const char *const **lists[LISTS] = {&launch->arguments, &launch->environment, &launch->mounts, &launch->protect};
    for (int index = 0; index < LISTS; index++) {
        *lists[index] = list;
        for (uint32_t item = 0; item < header->counts[index]; item++) {
            if (cursor >= end) return -EPROTO;
            *list++ = cursor;
            cursor += strlen(cursor) + 1;
        }
        list++; /* the null pointer at its end */
    }
    launch->limits = header->limits;
    launch->files = header->files;
    launch->optional = header->optional;
    launch->omit = header->omit;
    launch->uid = header->uid;
    launch->cgroup_fd = header->has_cgroup ? 0 : -1;
    launch->proxy_fd = header->has_proxy ? 0 : -1;
    return 0;
}

static void report(const struct krux_launch *launch, struct krux_report message) {
    message.landlock_abi = (uint32_t)krux_landlock_abi();
    /* Nobody is left to tell when the other end is gone. */
    (void)!write(launch->status_fd, &message, sizeof message);
}

static void fail(const struct krux_launch *launch, uint32_t step, int error) {
    report(launch, (struct krux_report){.step = step, .error = -error});
}

/* Hands the gateway each connection that a program makes to the proxy's port, and waits for signals of its children. */
static void serve_proxy(const struct krux_launch *launch, int listener, int signals) {
    struct pollfd waiting[2] = {{.fd = signals, .events = POLLIN}, {.fd = listener, .events = POLLIN}};
    for (;;) {
        if (poll(waiting, 2, -1) < 0 && errno != EINTR) return;
        if (waiting[0].revents) {
            struct signalfd_siginfo signal;
            (void)!read(signals, &signal, sizeof signal);
            return;
        }
        if (!waiting[1].revents) continue;
        int connection = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (connection < 0) continue;
        /* The gateway gone: so is this process, soon. */
        (void)send_message(launch->proxy_fd, 0, &connection, 1);
        close(connection);
    }
}

static int list_children(void) { return open("/proc/thread-self/children", O_RDONLY | O_CLOEXEC); }

/* Ends what this process is the reaper of, and what that leaves to it, until nothing is left. */
static void end_descendants(void) {
    char text[8192];
    for (;;) {
        int fd = list_children();
        ssize_t size = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
        if (fd >= 0) close(fd);
        if (size < 0) size = 0;
        text[size] = 0;
        /* A number that is cut at the end is no child's, or is read whole the next time. */
        char *end = size == (ssize_t)sizeof text - 1 ? strrchr(text, ' ') : NULL;
        if (end) *end = 0;
        char *save = NULL;
        for (char *word = strtok_r(text, " ", &save); word; word = strtok_r(NULL, " ", &save))
            kill((pid_t)atoi(word), SIGKILL);
        if (waitpid(-1, NULL, 0) < 0 && errno == ECHILD) return;
    }
}

static volatile pid_t program;
/* To the program and what it has kept in its session. */
static void forward_signal(int number) { kill(-program, number); }
/* Where there is no namespace that ends with this process: it ends everything itself. */
static void end_program(int number) {
    (void)number;
    if (program > 0) kill(program, SIGKILL);
}

/* Process 1 of the new namespace: builds the root, starts the program, reaps, reports. Never returns. */
static void init_process(struct krux_launch *launch, uid_t uid, gid_t gid, int go, uint32_t layers) {
    prctl(PR_SET_PDEATHSIG, layers & KRUX_LAYER_NAMESPACES ? SIGKILL : KRUX_SIGNAL_END);
    signal(SIGCHLD, SIG_DFL);
    int step = KRUX_STEP_IDENTITY;
    int error = 0;
    launch->root = (layers & KRUX_LAYER_NAMESPACES) != 0;
    /* What is orphaned below stays below: the control socket tells by its ancestors what the gateway started. */
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    umask(022); /* whoever the program runs as passes through what is built here */
    if (launch->root) {
        prctl(PR_SET_DUMPABLE, 1); /* to write its own uid_map */
        char word = 1;
        if (go < 0) {
            error = krux_map_identity(uid, gid);
        } else if (read(go, &word, 1) != 1 || word != 0) {
            error = -EPERM;
        }
        if (error == 0) {
            step = KRUX_STEP_ROOT;
            error = krux_build_root(launch);
        }
    }
    int listener = -1, signals = -1;
    if (error == 0 && launch->proxy_fd >= 0 && (layers & KRUX_LAYER_NETWORK)) {
        step = KRUX_STEP_NETWORK;
        listener = krux_listen_for_proxy();
        sigset_t children;
        sigemptyset(&children);
        sigaddset(&children, SIGCHLD);
        sigprocmask(SIG_BLOCK, &children, NULL);
        signals = signalfd(-1, &children, SFD_CLOEXEC);
        error = listener < 0 ? listener : signals < 0 ? -errno : 0;
    }
    if (error == 0 && !launch->root) {
        step = KRUX_STEP_FILES;
        int children = list_children();
        if (children < 0) error = -errno;
        else close(children);
    }
    int ends[2];
    if (error == 0 && pipe2(ends, O_CLOEXEC) < 0) error = -errno;
    pid_t child = error == 0 ? fork() : -1;
    if (error == 0 && child < 0) {
        step = KRUX_STEP_CLONE;
        error = -errno;
    }
    if (error < 0) {
        fail(launch, step, error);
        _exit(125);
    }
    if (child == 0) {
        /* The pipe's end is the last that is told what happened; close_range marks it for exec. */
        uint32_t failed = KRUX_STEP_NONE;
        error = krux_confine_and_exec(launch, &failed, &layers, ends[1]);
        struct krux_report message = {.step = failed, .error = -error, .layers = layers};
        (void)!write(ends[1], &message, sizeof message);
        _exit(126);
    }
    /* What the gateway wants of the program reaches this process. */
    program = child;
    struct sigaction forward = {.sa_handler = forward_signal};
    const int forwarded[] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2};
    for (size_t index = 0; index < sizeof forwarded / sizeof *forwarded; index++)
        sigaction(forwarded[index], &forward, NULL);
    struct sigaction end = {.sa_handler = end_program};
    sigaction(KRUX_SIGNAL_END, &end, NULL);
    prctl(PR_SET_DUMPABLE, 0);
    close(ends[1]);
    close(launch->stdout_fd);
    close(launch->stderr_fd);
    struct krux_report started = {.step = KRUX_STEP_EXEC, .error = EPIPE}, next;
    while (read(ends[0], &next, sizeof next) == (ssize_t)sizeof next) started = next;
    report(launch, started);
    if (started.step != KRUX_STEP_NONE) _exit(126);
    for (;;) {
        int status;
        if (listener >= 0) serve_proxy(launch, listener, signals);
        pid_t ended;
        while ((ended = waitpid(-1, &status, listener >= 0 ? WNOHANG : 0)) > 0) {
            if (ended != child) continue;
            /* There is no namespace to take along what it has started. Who leaves that out by hand, to see what it is
             * there for, sees it. */
            if (!launch->root && launch->omit) kill(-child, SIGKILL);
            else if (!launch->root) end_descendants();
            report(launch, (struct krux_report){.wait_status = status, .layers = started.layers, .ended = 1});
            _exit(0); /* and the kernel kills what is left of the namespace */
        }
        if (ended < 0 && errno != EINTR) _exit(125);
    }
}

static void launch_one(int socket, int *fds, int count) {
    struct krux_launch launch;
    memset(&launch, 0, sizeof launch);
    struct held held = {NULL, 0, NULL};
    int pidfd = -1;
    int32_t result = read_launch(fds[0], &launch, &held);
    launch.workspace_fd = fds[1];
    launch.stdout_fd = fds[2];
    launch.stderr_fd = fds[3];
    launch.status_fd = fds[4];
    int next = LAUNCH_FDS;
    if (result == 0 && launch.cgroup_fd >= 0) {
        if (next < count) launch.cgroup_fd = fds[next++];
        else result = -EPROTO;
    }
    if (result == 0 && launch.proxy_fd >= 0) {
        if (next < count) launch.proxy_fd = fds[next++];
        else result = -EPROTO;
    }
    for (int index = 0; result == 0 && launch.mounts[index]; index++) {
        if (next < count) launch.mount_fds[index] = fds[next++];
        else result = -EPROTO;
    }
    /* A root gateway's child learns its users from here, who alone may say. */
    int go[2] = {-1, -1};
    if (result == 0 && launch.uid && pipe2(go, O_CLOEXEC) < 0) result = -errno;
    if (result == 0) {
        uid_t uid = geteuid();
        gid_t gid = getegid();
        uint32_t layers = 0;
        uint64_t flags = 0;
        if (!(launch.omit & KRUX_LAYER_NAMESPACES)) {
            layers |= KRUX_LAYER_NAMESPACES;
            flags |= CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS;
            if (launch.files != KRUX_FULL_ACCESS && !(launch.omit & KRUX_LAYER_NETWORK)) {
                layers |= KRUX_LAYER_NETWORK;
                flags |= CLONE_NEWNET;
            }
        }
        struct clone_args arguments = {
            .flags = CLONE_PIDFD | flags, .pidfd = (uint64_t)(uintptr_t)&pidfd, .exit_signal = SIGCHLD};
        if (launch.cgroup_fd >= 0 && !(launch.omit & KRUX_LAYER_CGROUP)) {
            layers |= KRUX_LAYER_CGROUP;
            arguments.flags |= CLONE_INTO_CGROUP;
            arguments.cgroup = (uint64_t)launch.cgroup_fd;
        }
        long child = syscall(SYS_clone3, &arguments, sizeof arguments);
        if (child < 0 && (layers & KRUX_LAYER_CGROUP)) {
            /* Most machines have none: it is said that it does not hold, and nothing else. */
            layers &= ~(uint32_t)KRUX_LAYER_CGROUP;
            arguments.flags &= ~(uint64_t)CLONE_INTO_CGROUP;
            child = syscall(SYS_clone3, &arguments, sizeof arguments);
        }
        if (child < 0 && (layers & KRUX_LAYER_NETWORK) && (launch.optional & KRUX_LAYER_NETWORK)) {
            layers &= ~(uint32_t)KRUX_LAYER_NETWORK;
            arguments.flags &= ~(uint64_t)CLONE_NEWNET;
            child = syscall(SYS_clone3, &arguments, sizeof arguments);
        }
        if (child < 0 && flags && (launch.optional & KRUX_LAYER_NAMESPACES)) {
            layers = 0;
            arguments.flags = CLONE_PIDFD;
            child = syscall(SYS_clone3, &arguments, sizeof arguments);
        }
        if (child == 0) {
            close(socket);
            if (go[1] >= 0) close(go[1]);
            init_process(&launch, uid, gid, go[0], layers);
        }
        if (child < 0) {
            /* Not the gateway's fault but the machine's: it is told which step cannot be had. */
            result = -errno;
            fail(&launch, KRUX_STEP_CLONE, result);
        } else if (go[1] >= 0) {
            char word = layers & KRUX_LAYER_NAMESPACES && krux_map_identity_of((pid_t)child, uid, launch.uid) < 0;
            (void)!write(go[1], &word, 1);
        }
    }
    if (go[0] >= 0) close(go[0]);
    if (go[1] >= 0) close(go[1]);
    if (held.base) munmap(held.base, held.size);
    free(held.list);
    send_message(socket, result, &pidfd, result == 0 ? 1 : 0);
    if (pidfd >= 0) close(pidfd);
}

static void zygote_main(int socket) {
    prctl(PR_SET_NAME, "kruxos-zygote");
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    setsid();
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGCHLD, SIG_IGN); /* reaped by the kernel */
    signal(SIGPIPE, SIG_IGN);
    /* Standard error stays for the sanitizers and nothing else; input and output belong to the caller. */
    int null = krux_openat2(-100, "/dev/null", 2, 0, 0);
    if (null >= 0) {
        dup2(null, 0);
        dup2(null, 1);
        dup2(null, 2);
    }
    close_from(3, socket);
    for (;;) {
        int32_t value;
        int fds[MOST_FDS];
        int count = receive_message(socket, &value, fds, MOST_FDS);
        if (count == -EPIPE) _exit(0); /* the gateway is gone; PDEATHSIG takes what runs */
        if (count < 0) _exit(1);
        if (count >= LAUNCH_FDS)
            launch_one(socket, fds, count);
        else
            send_message(socket, -EPROTO, NULL, 0);
        for (int index = 0; index < count; index++) close(fds[index]);
    }
}

static const char zygote_name[] = "kruxos-zygote";

/* Before main the process has one thread and is forked; later its own binary is started anew, and the constructor
 * below makes a zygote of it before anything else runs. */
static int start_zygote(int before_main) {
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) return -errno;
    int error = 0;
    if (before_main) {
        pid_t child = fork();
        if (child < 0) error = errno;
        if (child == 0) {
            close(pair[0]);
            zygote_main(pair[1]);
        }
    } else {
        posix_spawn_file_actions_t actions;
        const char *arguments[] = {zygote_name, NULL}, *environment[] = {NULL};
        pid_t child;
        error = posix_spawn_file_actions_init(&actions);
        if (!error) {
            /* dup2 onto itself would keep close-on-exec. */
            int end = fcntl(pair[1], F_DUPFD, 10);
            error = end < 0 ? errno : posix_spawn_file_actions_adddup2(&actions, end, 3);
            if (!error) error = posix_spawn_file_actions_addclosefrom_np(&actions, 4);
            if (!error)
                error = posix_spawn(&child, "/proc/self/exe", &actions, NULL, (char *const *)arguments,
                                    (char *const *)environment);
            if (end >= 0) close(end);
            posix_spawn_file_actions_destroy(&actions);
        }
    }
    close(pair[1]);
    if (error) {
        close(pair[0]);
        return -error;
    }
    zygote_socket = pair[0];
    zygote_owner = getpid();
    return 0;
}

int krux_zygote_start(void) {
    if (zygote_socket >= 0 && zygote_owner == getpid()) return 0;
    return start_zygote(0);
}

static int launch_through_zygote(const struct krux_launch *launch) {
    int error = krux_zygote_start();
    if (error < 0) return error;
    struct wire_header header = {
        .limits = launch->limits, .files = launch->files, .optional = launch->optional, .omit = launch->omit,
        .uid = launch->uid, .has_cgroup = launch->cgroup_fd >= 0, .has_proxy = launch->proxy_fd >= 0};
    const char *const singles[SINGLES] = {launch->workspace, launch->directory, launch->home};
    for (int index = 0; index < SINGLES; index++) header.bytes += strlen(singles[index]) + 1;
    for (int index = 0; index < LISTS; index++)
        for (const char *const *item = *list_of(launch, index); *item; item++) {
            header.counts[index]++;
            header.bytes += strlen(*item) + 1;
        }
    if (header.counts[2] > KRUX_MOST_MOUNTS) return -E2BIG;
    int memory = (int)syscall(SYS_memfd_create, "kruxos-launch", 1U /* MFD_CLOEXEC */);
    if (memory < 0) return -errno;
    error = write_all(memory, &header, sizeof header);
    for (int index = 0; error == 0 && index < SINGLES; index++)
        error = write_all(memory, singles[index], strlen(singles[index]) + 1);
    for (int index = 0; index < LISTS; index++)
        for (const char *const *item = *list_of(launch, index); error == 0 && *item; item++)
            error = write_all(memory, *item, strlen(*item) + 1);
    int pidfd = -1;
    if (error == 0) {
        int fds[MOST_FDS] = {
            memory, launch->workspace_fd, launch->stdout_fd, launch->stderr_fd, launch->status_fd};
        int count = LAUNCH_FDS;
        if (header.has_cgroup) fds[count++] = launch->cgroup_fd;
        if (header.has_proxy) fds[count++] = launch->proxy_fd;
        for (uint32_t index = 0; index < header.counts[2]; index++) fds[count++] = launch->mount_fds[index];
        error = send_message(zygote_socket, 0, fds, count);
    }
    if (error == 0) {
        int32_t result = -EPROTO;
        int count = receive_message(zygote_socket, &result, &pidfd, 1);
        error = count < 0 ? count : result < 0 ? result : count == 1 ? 0 : -EPROTO;
    }
    close(memory);
    return error < 0 ? error : pidfd;
}

int krux_zygote_launch(const struct krux_launch *launch) {
    int result = launch_through_zygote(launch);
    if (result != -EPIPE && result != -ECONNRESET) return result;
    /* The zygote has died; nothing was launched. A new one takes its place. */
    close(zygote_socket);
    zygote_socket = -1;
    return launch_through_zygote(launch);
}

/* Before main, while the process has one thread. */
__attribute__((constructor)) static void start_for_gateway(int argc, char **argv, char **envp) {
    (void)envp;
    if (argc == 1 && strcmp(argv[0], zygote_name) == 0) zygote_main(3);
    if (argc < 2) return;
    const char *name = strrchr(argv[0], '/');
    name = name ? name + 1 : argv[0];
    if (strcmp(name, "kruxos") != 0) return;
    for (int index = 1; index < argc; index++)
        if (strcmp(argv[index], "serve") == 0 || strcmp(argv[index], "call") == 0 ||
            strcmp(argv[index], "sandbox") == 0) {
            /* A failure shows again, with its reason, at the first launch. */
            (void)start_zygote(1);
            return;
        }
}
