#define _GNU_SOURCE
#include "csandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/xattr.h>
#include <unistd.h>

int krux_openat2(int directory, const char *path, uint64_t flags, uint64_t mode, uint64_t resolve) {
    struct open_how how = {.flags = flags, .mode = mode, .resolve = resolve};
    long result = syscall(SYS_openat2, directory, path, &how, sizeof how);
    return result < 0 ? -errno : (int)result;
}

int krux_renameat2(int from_directory, const char *from, int to_directory, const char *to, unsigned int flags) {
    long result = syscall(SYS_renameat2, from_directory, from, to_directory, to, flags);
    return result < 0 ? -errno : 0;
}

int krux_pidfd_signal(int pidfd, int signal) {
    long result = syscall(SYS_pidfd_send_signal, pidfd, signal, (void *)0, 0);
    return result < 0 ? -errno : 0;
}

const void *krux_memmem(const void *text, size_t size, const void *part, size_t length) {
    return memmem(text, size, part, length);
}

int krux_copy_attributes(int from, int to) {
    char *names = malloc(65536), *value = malloc(65536);
    int lost = 0;
    ssize_t size = names && value ? flistxattr(from, names, 65536) : -1;
    if (size < 0) lost = !names || !value ? -ENOMEM : errno == ENOTSUP ? 0 : -errno;
    for (ssize_t at = 0; at < size; at += (ssize_t)strlen(names + at) + 1) {
        const char *name = names + at;
        if (strncmp(name, "user.", 5) && strncmp(name, "system.posix_acl_", 17)) continue;
        ssize_t count = fgetxattr(from, name, value, 65536);
        if (count < 0 || fsetxattr(to, name, value, (size_t)count, 0) < 0) lost++;
    }
    free(names);
    free(value);
    return lost;
}

int krux_holds_files(int descriptor) {
    struct statfs system;
    if (fstatfs(descriptor, &system) < 0) return -errno;
    switch ((unsigned long)system.f_type) {
    case PROC_SUPER_MAGIC:
    case SYSFS_MAGIC:
    case DEVPTS_SUPER_MAGIC:
    case CGROUP_SUPER_MAGIC:
    case CGROUP2_SUPER_MAGIC:
    case DEBUGFS_MAGIC:
    case TRACEFS_MAGIC:
    case SECURITYFS_MAGIC:
    case BPF_FS_MAGIC:
    case EFIVARFS_MAGIC: return 0;
    default: return 1;
    }
}

int krux_sync(int directory) {
    int folder = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0) return -errno;
    int result = syncfs(folder) < 0 ? -errno : 0;
    close(folder);
    return result;
}

int krux_pipe(int ends[2]) { return pipe2(ends, O_CLOEXEC) < 0 ? -errno : 0; }
