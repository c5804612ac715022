/* The zygote: waits for launches on a socket, clones a confined process for each, passes a pidfd back. */
#define _GNU_SOURCE
#include "csandbox.h"
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static int zygote_socket = -1;
static pid_t zygote_owner = 0;

enum { LAUNCH_FDS = 5, MAX_STRINGS = 1 << 14 };

/* A launch on the wire is a memfd: the limits, three counts, then the strings one after the other, each with its NUL:
 * workspace, directory, arguments, environment. */
struct wire_header {
    struct krux_limits limits;
    uint32_t arguments;
    uint32_t environment;
    uint64_t bytes;
};

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
    char control[CMSG_SPACE(sizeof(int) * LAUNCH_FDS)];
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
    char control[CMSG_SPACE(sizeof(int) * LAUNCH_FDS)];
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
    if (header->arguments == 0 || header->arguments > MAX_STRINGS || header->environment > MAX_STRINGS) return -EPROTO;
    size_t total = 2 + header->arguments + header->environment;
    const char **list = calloc(total + 2, sizeof *list);
    if (!list) return -ENOMEM;
    held->list = list;
    const char *cursor = base + sizeof *header, *end = base + status.st_size;
    const char **arguments = list, **environment = list + header->arguments + 1;
    for (size_t index = 0; index < total; index++) {
        if (cursor >= end) return -EPROTO;
        if (index == 0) launch->workspace = cursor;
        else if (index == 1) launch->directory = cursor;
        else if (index < 2 + header->arguments) arguments[index - 2] = cursor;
        else environment[index - 2 - header->arguments] = cursor;
        cursor += strlen(cursor) + 1;
    }
    launch->arguments = arguments;
    launch->environment = environment;
    launch->limits = header->limits;
    return 0;
}

static void report(int status_fd, uint32_t step, int error, int wait_status) {
    struct krux_report message = {
        .step = step, .error = error, .wait_status = wait_status, .landlock_abi = (uint32_t)krux_landlock_abi()};
    /* Nobody is left to tell when the other end is gone. */
    (void)!write(status_fd, &message, sizeof message);
}

/* Process 1 of the new namespace: builds the root, starts the program, reaps, reports. Never returns. */
static void init_process(const struct krux_launch *launch, uid_t uid, gid_t gid) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    prctl(PR_SET_DUMPABLE, 1); /* to write its own uid_map */
    signal(SIGCHLD, SIG_DFL);
    int step = KRUX_STEP_IDENTITY;
    int error = krux_map_identity(uid, gid);
    if (error == 0) {
        step = KRUX_STEP_ROOT;
        error = krux_build_root(launch);
    }
    if (error < 0) {
        report(launch->status_fd, step, -error, 0);
        _exit(125);
    }
    pid_t child = fork();
    if (child < 0) {
        report(launch->status_fd, KRUX_STEP_CLONE, errno, 0);
        _exit(125);
    }
    if (child == 0) {
        uint32_t failed = KRUX_STEP_NONE;
        error = krux_confine_and_exec(launch, &failed);
        report(launch->status_fd, failed, -error, 0);
        _exit(126);
    }
    prctl(PR_SET_DUMPABLE, 0);
    close(launch->stdout_fd);
    close(launch->stderr_fd);
    for (;;) {
        int status;
        pid_t ended = wait(&status);
        if (ended < 0 && errno == EINTR) continue;
        if (ended < 0) _exit(125);
        if (ended != child) continue;
        /* A failed step has been reported by the child itself. */
        if (!(WIFEXITED(status) && WEXITSTATUS(status) == 126 && krux_exec_failed(launch->status_fd)))
            report(launch->status_fd, KRUX_STEP_NONE, 0, status);
        _exit(0); /* and the kernel kills what is left of the namespace */
    }
}

static void launch_one(int socket, int *fds) {
    struct krux_launch launch;
    memset(&launch, 0, sizeof launch);
    struct held held = {NULL, 0, NULL};
    int pidfd = -1;
    int32_t result = read_launch(fds[0], &launch, &held);
    launch.workspace_fd = fds[1];
    launch.stdout_fd = fds[2];
    launch.stderr_fd = fds[3];
    launch.status_fd = fds[4];
    if (result == 0) {
        uid_t uid = geteuid();
        gid_t gid = getegid();
        struct clone_args arguments = {
            .flags = CLONE_PIDFD | CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC |
                     CLONE_NEWUTS,
            .pidfd = (uint64_t)(uintptr_t)&pidfd,
            .exit_signal = SIGCHLD,
        };
        long child = syscall(SYS_clone3, &arguments, sizeof arguments);
        if (child == 0) {
            close(socket);
            init_process(&launch, uid, gid);
        }
        if (child < 0) {
            /* Not the gateway's fault but the machine's: it is told which step cannot be had. */
            report(launch.status_fd, KRUX_STEP_CLONE, errno, 0);
            result = -errno;
        }
    }
    if (held.base) munmap(held.base, held.size);
    free(held.list);
    send_message(socket, result, &pidfd, result == 0 ? 1 : 0);
    if (pidfd >= 0) close(pidfd);
}

static void zygote_main(int socket) {
    prctl(PR_SET_NAME, "kruxos-zygote");
    setsid();
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
        int fds[LAUNCH_FDS];
        int count = receive_message(socket, &value, fds, LAUNCH_FDS);
        if (count == -EPIPE) _exit(0); /* the gateway is gone; PDEATHSIG takes what runs */
        if (count < 0) _exit(1);
        if (count == LAUNCH_FDS)
            launch_one(socket, fds);
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
    struct wire_header header = {.limits = launch->limits};
    header.bytes = strlen(launch->workspace) + strlen(launch->directory) + 2;
    for (const char *const *item = launch->arguments; *item; item++) {
        header.arguments++;
        header.bytes += strlen(*item) + 1;
    }
    for (const char *const *item = launch->environment; *item; item++) {
        header.environment++;
        header.bytes += strlen(*item) + 1;
    }
    int memory = (int)syscall(SYS_memfd_create, "kruxos-launch", 1U /* MFD_CLOEXEC */);
    if (memory < 0) return -errno;
    error = write_all(memory, &header, sizeof header);
    if (error == 0) error = write_all(memory, launch->workspace, strlen(launch->workspace) + 1);
    if (error == 0) error = write_all(memory, launch->directory, strlen(launch->directory) + 1);
    for (const char *const *item = launch->arguments; error == 0 && *item; item++)
        error = write_all(memory, *item, strlen(*item) + 1);
    for (const char *const *item = launch->environment; error == 0 && *item; item++)
        error = write_all(memory, *item, strlen(*item) + 1);
    int pidfd = -1;
    if (error == 0) {
        int fds[LAUNCH_FDS] = {
            memory, launch->workspace_fd, launch->stdout_fd, launch->stderr_fd, launch->status_fd};
        error = send_message(zygote_socket, 0, fds, LAUNCH_FDS);
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
        if (strcmp(argv[index], "serve") == 0 || strcmp(argv[index], "call") == 0) {
            /* A failure shows again, with its reason, at the first launch. */
            (void)start_zygote(1);
            return;
        }
}
