/* What is done to a process between clone and exec. Single-threaded; see csandbox.h for the order. */
#define _GNU_SOURCE
#include "csandbox.h"
#include "internal.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <grp.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_landlock_create_ruleset
#define SYS_landlock_create_ruleset 444
#define SYS_landlock_add_rule 445
#define SYS_landlock_restrict_self 446
#endif

/* include/uapi/linux/landlock.h, ABI 7; older headers lack the later members, and the kernel is told the size. */
struct landlock_ruleset {
    uint64_t handled_access_fs;
    uint64_t handled_access_net; /* ABI 4 */
    uint64_t scoped;             /* ABI 6 */
};
struct landlock_port {
    uint64_t allowed_access;
    uint64_t port;
};
struct landlock_path {
    uint64_t allowed_access;
    int32_t parent_fd;
} __attribute__((packed));

enum {
    LL_EXECUTE = 1 << 0,
    LL_WRITE_FILE = 1 << 1,
    LL_READ_FILE = 1 << 2,
    LL_READ_DIR = 1 << 3,
    LL_ALL_ABI1 = (1 << 13) - 1,
    LL_MAKE_CHAR = 1 << 6,
    LL_MAKE_BLOCK = 1 << 11,
    LL_REFER = 1 << 13,     /* ABI 2 */
    LL_TRUNCATE = 1 << 14,  /* ABI 3 */
    LL_IOCTL_DEV = 1 << 15, /* ABI 5 */
};

int krux_landlock_abi(void) {
    long abi = syscall(SYS_landlock_create_ruleset, (void *)0, 0, 1U /* LANDLOCK_CREATE_RULESET_VERSION */);
    return abi < 0 ? 0 : (int)abi;
}

static int write_file(const char *path, const char *text) {
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) return -errno;
    ssize_t count = write(fd, text, strlen(text));
    int error = count < 0 ? -errno : 0;
    close(fd);
    return error;
}

int krux_map_identity(uid_t uid, gid_t gid) {
    char line[64];
    snprintf(line, sizeof line, "%u %u 1\n", uid, uid);
    int error = write_file("/proc/self/uid_map", line);
    if (error < 0) return error;
    error = write_file("/proc/self/setgroups", "deny");
    if (error < 0) return error;
    snprintf(line, sizeof line, "%u %u 1\n", gid, gid);
    return write_file("/proc/self/gid_map", line);
}

int krux_map_identity_of(pid_t child, uid_t uid, uid_t agent) {
    char path[64], lines[96];
    snprintf(lines, sizeof lines, "%u %u 1\n%u %u 1\n", uid, uid, agent, agent);
    snprintf(path, sizeof path, "/proc/%d/uid_map", (int)child);
    int error = write_file(path, lines);
    if (error < 0) return error;
    snprintf(path, sizeof path, "/proc/%d/gid_map", (int)child);
    return write_file(path, lines);
}

/* The loopback interface of a new network namespace is down. */
static int raise_loopback(void) {
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return -errno;
    struct ifreq request;
    memset(&request, 0, sizeof request);
    strcpy(request.ifr_name, "lo");
    request.ifr_flags = IFF_UP | IFF_RUNNING;
    int error = ioctl(fd, SIOCSIFFLAGS, &request) < 0 ? -errno : 0;
    close(fd);
    return error;
}

int krux_listen_for_proxy(void) {
    int error = raise_loopback();
    if (error < 0) return error;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return -errno;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(KRUX_PROXY_PORT)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, 128) < 0) {
        error = -errno;
        close(fd);
        return error;
    }
    return fd;
}

/* Directories of the system, read-only and executable. What is a symbolic link outside is the same link inside. */
static const char *const system_directories[] = {
    "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt", NULL};

/* The part of /etc that programs need and that holds nobody's secrets. */
static const char *const configuration_files[] = {
    "/etc/passwd", "/etc/group", "/etc/hosts", "/etc/nsswitch.conf", "/etc/localtime", "/etc/timezone",
    "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives", "/etc/ssl/certs",
    "/etc/ca-certificates", "/etc/ca-certificates.conf", "/etc/ssl/openssl.cnf", "/etc/mime.types", "/etc/os-release",
    "/etc/services", "/etc/protocols", "/etc/terminfo", "/etc/inputrc", "/etc/bash.bashrc", "/etc/profile",
    "/etc/gitconfig", "/etc/magic", "/etc/python3", "/etc/perl", "/etc/java-11-openjdk", "/etc/java-17-openjdk",
    "/etc/java-21-openjdk", NULL};

static const char *const devices[] = {"null", "zero", "full", "random", "urandom", NULL};

static int make_directories(const char *path) {
    char copy[4096];
    if (strlen(path) >= sizeof copy) return -ENAMETOOLONG;
    strcpy(copy, path);
    for (char *cursor = copy + 1;; cursor++) {
        if (*cursor != '/' && *cursor != 0) continue;
        char saved = *cursor;
        *cursor = 0;
        if (mkdir(copy, 0755) < 0 && errno != EEXIST) return -errno;
        *cursor = saved;
        if (saved == 0) return 0;
    }
}

/* mount_setattr(2), of Linux 5.12; Landlock is younger. Takes nothing away: flags that are there stay. */
struct mount_attributes {
    uint64_t set, clear, propagation, user_namespace;
};
enum { ATTR_RDONLY = 1, ATTR_NOSUID = 2, ATTR_NODEV = 4 };

/* A mount and all that is mounted below it. `path` empty means the descriptor itself. */
static int restrict_mounts(int directory, const char *path, int read_only) {
    struct mount_attributes attributes = {.set = ATTR_NOSUID | ATTR_NODEV | (read_only ? ATTR_RDONLY : 0)};
    unsigned int flags = 0x8000 /* AT_RECURSIVE */ | (path[0] ? 0x100 /* AT_SYMLINK_NOFOLLOW */ : AT_EMPTY_PATH);
    long result = syscall(442 /* SYS_mount_setattr */, directory, path, flags, &attributes, sizeof attributes);
    return result < 0 ? -errno : 0;
}

static int bind_mount(const char *source, const char *target, int read_only) {
    if (mount(source, target, NULL, MS_BIND | MS_REC | MS_SILENT, NULL) < 0) return -errno;
    return restrict_mounts(AT_FDCWD, target, read_only);
}

/* Shows `path` of the machine at the same place of the new root. What is not there is left out. */
static int show(const char *path, int read_only) {
    char source[4096], target[4096];
    snprintf(source, sizeof source, "/oldroot%s", path);
    snprintf(target, sizeof target, "/newroot%s", path);
    struct stat status;
    if (lstat(source, &status) < 0) return errno == ENOENT || errno == EACCES ? 0 : -errno;
    char *slash = strrchr(target, '/');
    if (slash > target + strlen("/newroot")) {
        *slash = 0;
        int error = make_directories(target);
        if (error < 0) return error;
        *slash = '/';
    }
    if (S_ISLNK(status.st_mode)) {
        char link[4096];
        ssize_t length = readlink(source, link, sizeof link - 1);
        if (length < 0) return -errno;
        link[length] = 0;
        return symlink(link, target) < 0 && errno != EEXIST ? -errno : 0;
    }
    if (S_ISDIR(status.st_mode)) {
        if (mkdir(target, 0755) < 0 && errno != EEXIST) return -errno;
    } else {
        int fd = open(target, O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
        if (fd < 0) return -errno;
        close(fd);
    }
    return bind_mount(source, target, read_only);
}

static int build_devices(void) {
    if (mkdir("/newroot/dev", 0755) < 0) return -errno;
    for (const char *const *name = devices; *name; name++) {
        char source[256], target[256];
        snprintf(source, sizeof source, "/oldroot/dev/%s", *name);
        snprintf(target, sizeof target, "/newroot/dev/%s", *name);
        int fd = open(target, O_CREAT | O_WRONLY | O_CLOEXEC, 0666);
        if (fd < 0) return -errno;
        close(fd);
        if (mount(source, target, NULL, MS_BIND | MS_SILENT, NULL) < 0) return -errno;
    }
    if (symlink("/proc/self/fd", "/newroot/dev/fd") < 0) return -errno;
    if (symlink("/proc/self/fd/0", "/newroot/dev/stdin") < 0) return -errno;
    if (symlink("/proc/self/fd/1", "/newroot/dev/stdout") < 0) return -errno;
    if (symlink("/proc/self/fd/2", "/newroot/dev/stderr") < 0) return -errno;
    return 0;
}

/* Shows the directory behind a descriptor at `target`, below /newroot. A descriptor of another mount namespace cannot be
 * bound, so its path is, and the result must be the same directory. */
static int show_directory(int fd, const char *target, int read_only) {
    char text[64], source[4200] = "/oldroot";
    struct stat wanted, found;
    snprintf(text, sizeof text, "/oldroot/proc/self/fd/%d", fd);
    ssize_t length = readlink(text, source + strlen("/oldroot"), sizeof source - strlen("/oldroot") - 1);
    if (length < 0 || fstat(fd, &wanted) < 0) return -errno;
    source[strlen("/oldroot") + (size_t)length] = 0;
    int error = make_directories(target);
    if (error == 0) error = bind_mount(source, target, read_only);
    if (error < 0) return error;
    if (stat(target, &found) < 0) return -errno;
    return found.st_dev == wanted.st_dev && found.st_ino == wanted.st_ino ? 0 : -ESTALE;
}

/* What of the workspace stays as it is: each is mounted over itself, read-only. One that is not there is left out. */
static int protect(const char *workspace, const char *const *names) {
    int base = open(workspace, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (base < 0) return -errno;
    int error = 0;
    for (; error == 0 && *names; names++) {
        int fd = krux_openat2(base, *names, O_PATH | O_CLOEXEC | O_NOFOLLOW, 0, 0x08 | 0x04 | 0x02);
        if (fd == -ENOENT || fd == -ENOTDIR || fd == -ELOOP) continue;
        if (fd < 0) {
            error = fd;
            break;
        }
        char place[64];
        struct stat status;
        if (fstat(fd, &status) == 0 && (S_ISREG(status.st_mode) || S_ISDIR(status.st_mode))) {
            snprintf(place, sizeof place, "/oldroot/proc/self/fd/%d", fd);
            if (mount(place, place, NULL, MS_BIND | MS_REC | MS_SILENT, NULL) < 0) error = -errno;
            /* The descriptor still means what is below the new mount; opened again it means the mount. */
            close(fd);
            fd = krux_openat2(base, *names, O_PATH | O_CLOEXEC | O_NOFOLLOW, 0, 0x08 | 0x04 | 0x02);
            if (error == 0 && fd < 0) error = fd;
            if (error == 0) error = restrict_mounts(fd, "", 1);
        }
        if (fd >= 0) close(fd);
    }
    close(base);
    return error;
}

static int is_one_of(const char *name, const char *const *names) {
    while (*names && strcmp(*names, name)) names++;
    return *names != NULL;
}

/* Every directory and file in `folder`, a path with a slash at its end, as it is, but what is left out. */
static int show_all(const char *folder, const char *const *left_out) {
    char path[600];
    snprintf(path, sizeof path, "/oldroot%s", folder);
    DIR *stream = opendir(path);
    if (!stream) return errno == ENOENT || errno == EACCES ? 0 : -errno;
    int error = 0;
    struct dirent *entry;
    while (error == 0 && (entry = readdir(stream))) {
        const char *name = entry->d_name;
        if (!strcmp(name, ".") || !strcmp(name, "..") || is_one_of(name, left_out)) continue;
        snprintf(path, sizeof path, "%s%s", folder, name);
        error = show(path, 0);
    }
    closedir(stream);
    return error;
}

/* The machine as it is. Where something is mounted for the agent, /mnt is a directory of the new root's, with what the
 * machine has there beside it. */
static int show_everything(const struct krux_launch *launch) {
    static const char *const own[] = {"proc", "workspace", "tmp", "dev", NULL};
    static const char *const own_and_mnt[] = {"proc", "workspace", "tmp", "dev", "mnt", NULL};
    if (!launch->mounts[0]) return show_all("/", own);
    int error = show_all("/", own_and_mnt);
    const char *labels[KRUX_MOST_MOUNTS + 1] = {NULL};
    for (uint32_t index = 0; index < KRUX_MOST_MOUNTS && launch->mounts[index]; index++)
        labels[index] = launch->mounts[index] + strlen("rw/mnt/");
    if (error == 0 && mkdir("/newroot/mnt", 0755) < 0) return -errno;
    if (error == 0) error = show_all("/mnt/", labels);
    return error;
}

int krux_build_root(const struct krux_launch *launch) {
    char text[4200];
    int everything = launch->files == KRUX_FULL_ACCESS;
    /* Nothing done here reaches the machine's own mounts, and nothing mounted there later appears here. */
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE | MS_SILENT, NULL) < 0) return -errno;
    if (mount("tmpfs", "/tmp", "tmpfs", MS_NODEV | MS_NOSUID | MS_SILENT, "mode=0755,size=4m") < 0) return -errno;
    if (mkdir("/tmp/newroot", 0755) < 0 || mkdir("/tmp/oldroot", 0755) < 0) return -errno;
    if (mount("tmpfs", "/tmp/newroot", "tmpfs", MS_NODEV | MS_NOSUID | MS_SILENT, "mode=0755,size=4m") < 0)
        return -errno;
    if (syscall(SYS_pivot_root, "/tmp", "/tmp/oldroot") < 0) return -errno;
    if (chdir("/") < 0) return -errno;

    int error = 0;
    if (everything) {
        error = show_everything(launch);
        if (error < 0) return error;
    } else {
        for (const char *const *path = system_directories; *path; path++) {
            error = show(*path, 1);
            if (error < 0) return error;
        }
        if (mkdir("/newroot/etc", 0755) < 0) return -errno;
        for (const char *const *path = configuration_files; *path; path++) {
            error = show(*path, 1);
            if (error < 0) return error;
        }
    }
    /* The gate's own files are in no box, wherever they lie. Its path has no links. */
    snprintf(text, sizeof text, "/newroot%s", launch->home);
    struct stat home;
    if (launch->home[0] && lstat(text, &home) == 0 &&
        mount("tmpfs", text, "tmpfs", MS_NODEV | MS_NOSUID | MS_RDONLY | MS_SILENT, "mode=0700,size=4k") < 0)
        return -errno;
    error = build_devices();
    if (error < 0) return error;

    /* A private /tmp, gone with the process. */
    if (mkdir("/newroot/tmp", 01777) < 0) return -errno;
    snprintf(text, sizeof text, "mode=1777,size=%llu", (unsigned long long)launch->limits.tmp_bytes);
    if (mount("tmpfs", "/newroot/tmp", "tmpfs", MS_NODEV | MS_NOSUID | MS_SILENT, text) < 0) return -errno;

    /* This namespace's own processes and no others. Some containers forbid it; then there is no /proc at all. */
    if (mkdir("/newroot/proc", 0555) < 0) return -errno;
    (void)!mount("proc", "/newroot/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_SILENT, NULL);

    char target[4200];
    if (snprintf(target, sizeof target, "/newroot%s", launch->workspace) >= (int)sizeof target) return -ENAMETOOLONG;
    error = show_directory(launch->workspace_fd, target, launch->files == KRUX_READ_ONLY);
    if (error == 0 && launch->files == KRUX_WORKSPACE_WRITE) error = protect(target, launch->protect);
    for (uint32_t index = 0; error == 0 && launch->mounts[index]; index++) {
        /* "rw/mnt/label" or "ro/mnt/label". */
        const char *mount = launch->mounts[index];
        if (snprintf(target, sizeof target, "/newroot%s", mount + 2) >= (int)sizeof target) return -ENAMETOOLONG;
        int read_only = mount[1] == 'o' || launch->files == KRUX_READ_ONLY;
        error = show_directory(launch->mount_fds[index], target, read_only);
        if (error == 0 && !read_only && launch->files == KRUX_WORKSPACE_WRITE) error = protect(target, launch->protect);
    }
    if (error < 0) return error;

    if (umount2("/oldroot", MNT_DETACH) < 0) return -errno;
    if (chdir("/newroot") < 0) return -errno;
    if (syscall(SYS_pivot_root, ".", ".") < 0) return -errno;
    if (umount2(".", MNT_DETACH) < 0) return -errno;
    /* The root itself is written no more. */
    if (mount("none", "/", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_SILENT, NULL) < 0)
        return -errno;
    return chdir("/") < 0 ? -errno : 0;
}

static int limit(int resource, uint64_t value) {
    struct rlimit current, wanted;
    if (getrlimit(resource, &current) < 0) return -errno;
    wanted.rlim_cur = wanted.rlim_max = value < current.rlim_max ? value : current.rlim_max;
    return setrlimit(resource, &wanted) < 0 ? -errno : 0;
}

static int apply_limits(const struct krux_limits *limits) {
    int error = limit(RLIMIT_CORE, 0);
    if (error == 0) error = limit(RLIMIT_CPU, limits->cpu_seconds);
    if (error == 0) error = limit(RLIMIT_FSIZE, limits->file_bytes);
    if (error == 0) error = limit(RLIMIT_NOFILE, limits->open_files);
    if (error == 0) error = limit(RLIMIT_NPROC, limits->processes);
    if (error == 0) error = limit(RLIMIT_AS, limits->address_space);
    if (error == 0) error = limit(RLIMIT_MEMLOCK, 65536);
    return error;
}

static int allow(int ruleset, const char *path, uint64_t access, int required) {
    int fd = open(path, O_PATH | O_CLOEXEC);
    if (fd < 0) return required ? -errno : 0;
    struct stat status;
    if (fstat(fd, &status) == 0 && !S_ISDIR(status.st_mode))
        access &= LL_EXECUTE | LL_WRITE_FILE | LL_READ_FILE | LL_TRUNCATE | LL_IOCTL_DEV;
    struct landlock_path rule = {.allowed_access = access, .parent_fd = fd};
    long result = syscall(SYS_landlock_add_rule, ruleset, 1 /* LANDLOCK_RULE_PATH_BENEATH */, &rule, 0);
    int error = result < 0 ? -errno : 0;
    close(fd);
    return error;
}

static int apply_landlock(const struct krux_launch *launch) {
    int abi = krux_landlock_abi();
    if (abi < 1) return -ENOSYS;
    int everything = launch->files == KRUX_FULL_ACCESS;
    struct landlock_ruleset rules = {.handled_access_fs = LL_ALL_ABI1};
    size_t size = sizeof rules.handled_access_fs;
    if (abi >= 2) rules.handled_access_fs |= LL_REFER;
    if (abi >= 3) rules.handled_access_fs |= LL_TRUNCATE;
    if (abi >= 5) rules.handled_access_fs |= LL_IOCTL_DEV;
    if (abi >= 4) {
        rules.handled_access_net = everything ? 0 : 3; /* bind and connect of TCP */
        size = offsetof(struct landlock_ruleset, scoped);
    }
    if (abi >= 6) {
        rules.scoped = 3; /* abstract sockets and signals stay inside */
        size = sizeof rules;
    }
    int ruleset = (int)syscall(SYS_landlock_create_ruleset, &rules, size, 0);
    if (ruleset < 0) return -errno;
    uint64_t read = LL_EXECUTE | LL_READ_FILE | LL_READ_DIR;
    /* Everything but device nodes. */
    uint64_t write = rules.handled_access_fs & ~(uint64_t)(LL_MAKE_CHAR | LL_MAKE_BLOCK | LL_IOCTL_DEV);
    if (everything) {
        int error = allow(ruleset, "/", rules.handled_access_fs, 1);
        if (error == 0 && syscall(SYS_landlock_restrict_self, ruleset, 0) < 0) error = -errno;
        close(ruleset);
        return error;
    }
    char here[64];
    snprintf(here, sizeof here, "/proc/self/fd/%d", launch->workspace_fd);
    int error = allow(ruleset, launch->root ? launch->workspace : here, launch->files == KRUX_READ_ONLY ? read : write, 1);
    for (const char *const *mount = launch->mounts; error == 0 && launch->root && *mount; mount++)
        error = allow(ruleset, *mount + 2, (*mount)[1] == 'o' || launch->files == KRUX_READ_ONLY ? read : write, 1);
    /* Without a root of its own it has no /tmp of its own. */
    if (error == 0 && launch->root) error = allow(ruleset, "/tmp", write, 1);
    if (error == 0 && launch->proxy_fd >= 0 && abi >= 4) {
        struct landlock_port rule = {.allowed_access = 2 /* connect */, .port = KRUX_PROXY_PORT};
        if (syscall(SYS_landlock_add_rule, ruleset, 2 /* LANDLOCK_RULE_NET_PORT */, &rule, 0) < 0) error = -errno;
    }
    for (const char *const *path = system_directories; error == 0 && *path; path++)
        error = allow(ruleset, *path, read, 0);
    if (error == 0) error = allow(ruleset, "/etc", LL_READ_FILE | LL_READ_DIR, 1);
    if (error == 0) error = allow(ruleset, "/proc", LL_READ_FILE | LL_READ_DIR, 1);
    if (error == 0 && launch->root) error = allow(ruleset, "/", LL_READ_DIR, 1);
    for (const char *const *name = devices; error == 0 && *name; name++) {
        char path[64];
        snprintf(path, sizeof path, "/dev/%s", *name);
        error = allow(ruleset, path, LL_READ_FILE | LL_WRITE_FILE | (rules.handled_access_fs & LL_TRUNCATE), 1);
    }
    if (error == 0 && syscall(SYS_landlock_restrict_self, ruleset, 0) < 0) error = -errno;
    close(ruleset);
    return error;
}

/* From a root gateway to the agents' own user, without groups. */
static int change_user(uid_t uid) {
    if (setgroups(0, NULL) < 0) return -errno;
    if (setresgid(uid, uid, uid) < 0) return -errno;
    return setresuid(uid, uid, uid) < 0 ? -errno : 0;
}

static int drop_bounding_set(void) {
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0 && errno != EINVAL) return -errno;
    for (int capability = 0; capability < 64; capability++) {
        if (prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) < 0) {
            if (errno == EINVAL) break; /* past the last one this kernel has */
            return -errno;
        }
    }
    return 0;
}

static int drop_capabilities(void) {
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[2];
    memset(none, 0, sizeof none);
    return syscall(SYS_capset, &header, none) < 0 ? -errno : 0;
}

static void reset_signals(void) {
    for (int number = 1; number < 65; number++) signal(number, SIG_DFL);
    sigset_t empty;
    sigemptyset(&empty);
    sigprocmask(SIG_SETMASK, &empty, NULL);
}

static const char search_path[] = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin";

const char *krux_search_path(void) { return search_path; }

/* Executes a file; one that the kernel does not know as a program is given to the shell, as execvp does. */
static int execute(const char *path, char *const *arguments, char *const *environment) {
    execve(path, arguments, environment);
    if (errno != ENOEXEC) return -errno;
    size_t count = 0;
    while (arguments[count]) count++;
    const char **given = calloc(count + 3, sizeof *given);
    if (!given) return -ENOMEM;
    given[0] = "sh";
    given[1] = path;
    for (size_t index = 1; index < count; index++) given[index + 1] = arguments[index];
    execve("/bin/sh", (char *const *)given, environment);
    return -errno;
}

/* A name is looked for in the system's directories and nowhere else: neither the gateway's own PATH nor the one that an
 * agent gives its program decides what a name means. */
static int search_and_execute(const char *name, char *const *arguments, char *const *environment) {
    if (strchr(name, '/')) return execute(name, arguments, environment);
    int result = -ENOENT;
    for (const char *cursor = search_path; *cursor;) {
        size_t length = strcspn(cursor, ":");
        char path[4096];
        int size = snprintf(path, sizeof path, "%.*s/%s", (int)length, cursor, name);
        int error = size >= (int)sizeof path ? -ENAMETOOLONG : execute(path, arguments, environment);
        if (error != -ENOENT && error != -ENOTDIR) {
            result = error;
            if (error != -EACCES) break;
        }
        cursor += length + (cursor[length] == ':');
    }
    return result;
}

/* Whether a layer is asked for. One that fails ends the launch, unless it may be missing. */
static int wanted(const struct krux_launch *launch, uint32_t layer) { return !(launch->omit & layer); }
static int settle(const struct krux_launch *launch, uint32_t layer, int error, uint32_t *held) {
    if (error == 0) *held |= layer;
    return error < 0 && !(launch->optional & layer) ? error : 0;
}

int krux_confine_and_exec(const struct krux_launch *launch, uint32_t *failed, uint32_t *held, int report_fd) {
    setsid();
    umask(077);
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    *failed = KRUX_STEP_DIRECTORY;
    if (null < 0 || dup2(null, 0) < 0 || dup2(launch->stdout_fd, 1) < 0 || dup2(launch->stderr_fd, 2) < 0)
        return -errno;
    /* Everything else closes at exec; what is reported goes out before. */
    if (syscall(SYS_close_range, 3, ~0U, 4U /* CLOSE_RANGE_CLOEXEC */) < 0) return -errno;
    if (wanted(launch, KRUX_LAYER_CAPABILITIES) && launch->root) {
        *failed = KRUX_STEP_PRIVILEGES;
        int error = drop_bounding_set();
        if (error < 0 && !(launch->optional & KRUX_LAYER_CAPABILITIES)) return error;
        *failed = KRUX_STEP_DIRECTORY;
    }
    if (launch->uid && wanted(launch, KRUX_LAYER_USER)) {
        *failed = KRUX_STEP_IDENTITY;
        int error = settle(launch, KRUX_LAYER_USER, change_user(launch->uid), held);
        if (error < 0) return error;
        *failed = KRUX_STEP_DIRECTORY;
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (launch->root ? chdir(launch->workspace) < 0 : fchdir(launch->workspace_fd) < 0) return -errno;
    if (launch->directory[0]) {
        /* Absolute in a mount, which is there in a private root only. */
        int absolute = launch->directory[0] == '/';
        if (absolute && !launch->root) return -ENOENT;
        int fd = krux_openat2(AT_FDCWD, launch->directory, O_PATH | O_DIRECTORY | O_CLOEXEC, 0,
                              (absolute ? 0 : 0x08) | 0x04 | 0x02 /* BENEATH, NO_SYMLINKS, NO_MAGICLINKS */);
        if (fd < 0) return fd;
        if (fchdir(fd) < 0) return -errno;
    }
    *failed = KRUX_STEP_LIMITS;
    int error = 0;
    if (wanted(launch, KRUX_LAYER_LIMITS)) error = settle(launch, KRUX_LAYER_LIMITS, apply_limits(&launch->limits), held);
    if (error < 0) return error;
    *failed = KRUX_STEP_PRIVILEGES;
    /* The session keyring is inherited and holds the owner's keys; an empty one of its own replaces it. */
    if (syscall(SYS_keyctl, 1 /* KEYCTL_JOIN_SESSION_KEYRING */, NULL) < 0 && errno != ENOSYS) return -errno;
    /* Never left out: what follows needs it. */
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) return -errno;
    *failed = KRUX_STEP_LANDLOCK;
    if (wanted(launch, KRUX_LAYER_LANDLOCK)) error = settle(launch, KRUX_LAYER_LANDLOCK, apply_landlock(launch), held);
    if (error < 0) return error;
    *failed = KRUX_STEP_PRIVILEGES;
    if (wanted(launch, KRUX_LAYER_CAPABILITIES))
        error = settle(launch, KRUX_LAYER_CAPABILITIES, drop_capabilities(), held);
    if (error < 0) return error;
    reset_signals();
    /* Layers may be missing, where the policy says so, but not what they are there for: the gate's own files and its
     * socket out of reach, and the network closed. Landlock alone leaves modes and times of files to whoever owns them, so
     * without a private root it takes another user as well. One who leaves layers out by hand looks at the others. */
    int has_network = launch->omit || launch->files == KRUX_FULL_ACCESS || (*held & KRUX_LAYER_NETWORK);
    uint32_t both = KRUX_LAYER_LANDLOCK | KRUX_LAYER_USER;
    if (!launch->omit && !launch->root && (launch->files == KRUX_FULL_ACCESS || (*held & both) != both)) {
        *failed = KRUX_STEP_FILES;
        return -EPERM;
    }
    *failed = KRUX_STEP_SECCOMP;
    if (wanted(launch, KRUX_LAYER_SECCOMP)) error = settle(launch, KRUX_LAYER_SECCOMP, krux_apply_seccomp(has_network), held);
    if (error < 0) return error;
    if (!launch->omit && !has_network && !(*held & KRUX_LAYER_SECCOMP)) {
        *failed = KRUX_STEP_NETWORK;
        return -EPERM;
    }
    *failed = KRUX_STEP_EXEC;
    struct krux_report ready = {.step = KRUX_STEP_NONE, .layers = *held};
    if (write(report_fd, &ready, sizeof ready) != (ssize_t)sizeof ready) return -EPIPE;
    return search_and_execute(
        launch->arguments[0], (char *const *)launch->arguments, (char *const *)launch->environment);
}

