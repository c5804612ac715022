/* Which system calls a confined process may make: an allow-list. What is known and refused gets EPERM; what is not
 * known, which newer kernels add, gets ENOSYS, so that libraries fall back to what they did before it existed. */
#define _GNU_SOURCE
#include "csandbox.h"
#include "internal.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__x86_64__)
#define KRUX_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define KRUX_ARCH AUDIT_ARCH_AARCH64
#else
#error "the system calls of this architecture have not been looked at"
#endif

static const short allowed[] = {
#define A(name) SYS_##name,
/* Files. */
A(read) A(write) A(readv) A(writev) A(pread64) A(pwrite64) A(preadv) A(pwritev) A(preadv2) A(pwritev2)
A(close) A(close_range) A(lseek) A(fstat) A(newfstatat) A(statx) A(statfs) A(fstatfs)
A(readlinkat) A(faccessat) A(faccessat2) A(getdents64) A(getcwd) A(chdir) A(fchdir) A(mkdirat) A(unlinkat)
A(symlinkat) A(linkat) A(renameat2) A(truncate) A(ftruncate) A(fallocate) A(fsync) A(fdatasync) A(sync_file_range)
A(syncfs) A(sync) A(fchown) A(fchownat) A(utimensat) A(umask) A(dup) A(dup3) A(fcntl) A(flock)
A(pipe2) A(splice) A(tee) A(vmsplice) A(sendfile) A(copy_file_range) A(readahead) A(fadvise64) A(getxattr) A(lgetxattr)
A(fgetxattr) A(listxattr) A(llistxattr) A(flistxattr) A(setxattr) A(lsetxattr) A(fsetxattr) A(removexattr)
A(lremovexattr) A(fremovexattr) A(inotify_init1) A(inotify_add_watch) A(inotify_rm_watch)
/* Waiting. */
A(ppoll) A(pselect6) A(epoll_create1) A(epoll_ctl) A(epoll_pwait) A(epoll_pwait2) A(eventfd2) A(signalfd4)
A(timerfd_create) A(timerfd_settime) A(timerfd_gettime)
/* Memory. */
A(mmap) A(munmap) A(mremap) A(mprotect) A(madvise) A(brk) A(msync) A(mlock) A(mlock2) A(munlock) A(mlockall) A(munlockall)
A(mincore) A(memfd_create) A(membarrier) A(get_mempolicy) A(pkey_alloc) A(pkey_free) A(pkey_mprotect) A(remap_file_pages)
/* Processes and threads; clone's flags are looked at below, clone3 hides them and gets ENOSYS. */
A(clone) A(execve) A(execveat) A(exit) A(exit_group) A(wait4) A(waitid) A(kill) A(tkill) A(tgkill) A(getpid) A(getppid)
A(gettid) A(getpgid) A(setpgid) A(getsid) A(setsid) A(getuid) A(geteuid) A(getgid) A(getegid) A(getresuid) A(getresgid)
A(getgroups) A(setuid) A(setgid) A(setreuid) A(setregid) A(setresuid) A(setresgid) A(setgroups) A(setfsuid) A(setfsgid)
A(capget) A(capset) A(prctl) A(prlimit64) A(getrlimit) A(setrlimit) A(getrusage) A(times) A(getpriority) A(setpriority)
A(ioprio_get) A(ioprio_set) A(sched_yield) A(sched_getaffinity) A(sched_setaffinity) A(sched_getparam) A(sched_setparam)
A(sched_getscheduler) A(sched_setscheduler) A(sched_get_priority_max) A(sched_get_priority_min) A(sched_rr_get_interval)
A(sched_getattr) A(sched_setattr) A(getcpu) A(set_tid_address) A(set_robust_list) A(get_robust_list) A(rseq) A(futex)
A(pidfd_open) A(pidfd_send_signal)
/* Signals and time. */
A(rt_sigaction) A(rt_sigprocmask) A(rt_sigpending) A(rt_sigtimedwait) A(rt_sigqueueinfo) A(rt_tgsigqueueinfo)
A(rt_sigsuspend) A(rt_sigreturn) A(sigaltstack) A(restart_syscall) A(nanosleep) A(clock_nanosleep) A(clock_gettime)
A(clock_getres) A(gettimeofday) A(getitimer) A(setitimer) A(timer_create) A(timer_settime) A(timer_gettime)
A(timer_getoverrun) A(timer_delete)
/* Sockets; the family is looked at below. */
A(socket) A(socketpair) A(bind) A(listen) A(accept) A(accept4) A(connect) A(getsockname) A(getpeername) A(sendto)
A(recvfrom) A(sendmsg) A(recvmsg) A(sendmmsg) A(recvmmsg) A(setsockopt) A(getsockopt) A(shutdown)
/* The machine, System V's and POSIX's ways to talk, within their own namespace. */
A(uname) A(sysinfo) A(getrandom) A(ioctl) A(personality) A(seccomp) A(landlock_create_ruleset) A(landlock_add_rule)
A(landlock_restrict_self) A(shmget) A(shmat) A(shmdt) A(shmctl) A(semget) A(semop) A(semtimedop) A(semctl) A(msgget)
A(msgsnd) A(msgrcv) A(msgctl) A(mq_open) A(mq_unlink) A(mq_timedsend) A(mq_timedreceive) A(mq_notify) A(mq_getsetattr)
#if defined(__x86_64__)
A(stat) A(lstat) A(access) A(readlink) A(mkdir) A(rmdir) A(unlink) A(symlink) A(link) A(rename)
A(renameat) A(chown) A(lchown) A(utime) A(utimes) A(futimesat) A(dup2) A(pipe) A(poll) A(select) A(epoll_create)
A(epoll_wait) A(eventfd) A(signalfd) A(inotify_init) A(getdents) A(fork) A(vfork) A(getpgrp) A(arch_prctl) A(alarm)
A(pause) A(time)
#else
A(renameat)
#endif
#undef A
};

/* Known to be dangerous, or of no use here. */
static const short refused[] = {
#define R(name) SYS_##name,
R(ptrace) R(process_vm_readv) R(process_vm_writev) R(kcmp) R(pidfd_getfd) R(io_uring_setup) R(io_uring_enter)
R(io_uring_register) R(userfaultfd) R(bpf) R(perf_event_open) R(keyctl) R(add_key) R(request_key) R(mount) R(umount2)
R(pivot_root) R(chroot) R(unshare) R(setns) R(open_tree) R(move_mount) R(fsopen) R(fsconfig) R(fsmount) R(fspick)
R(mount_setattr) R(open_by_handle_at) R(name_to_handle_at) R(fanotify_init) R(fanotify_mark) R(quotactl)
R(swapon) R(swapoff) R(reboot) R(kexec_load) R(init_module) R(finit_module) R(delete_module) R(settimeofday)
R(clock_settime) R(clock_adjtime) R(adjtimex) R(sethostname) R(setdomainname) R(syslog) R(vhangup) R(acct)
R(lookup_dcookie) R(nfsservctl) R(mbind) R(set_mempolicy) R(migrate_pages) R(move_pages) R(process_madvise)
R(io_setup) R(io_submit) R(io_getevents) R(io_cancel) R(io_destroy)
#if defined(__x86_64__)
R(iopl) R(ioperm) R(modify_ldt) R(uselib) R(ustat) R(sysfs) R(_sysctl) R(kexec_file_load)
#endif
#undef R
};

enum { COUNT = sizeof allowed / sizeof *allowed, REFUSED = sizeof refused / sizeof *refused, ROOM = 2 * (COUNT + REFUSED) + 160 };

struct program {
    struct sock_filter code[ROOM];
    unsigned short length;
};

static void add(struct program *program, unsigned short code, unsigned char yes, unsigned char no, unsigned int k) {
    struct sock_filter line = {code, yes, no, k};
    program->code[program->length++] = line;
}

static void answer(struct program *program, unsigned int what) { add(program, BPF_RET | BPF_K, 0, 0, what); }
static void load(struct program *program, size_t offset) { add(program, BPF_LD | BPF_W | BPF_ABS, 0, 0, (unsigned int)offset); }

/* The answer for one system call whose number is loaded. */
static void when(struct program *program, int number, unsigned int what) {
    add(program, BPF_JMP | BPF_JEQ | BPF_K, 0, 1, (unsigned int)number);
    answer(program, what);
}

/* A mode in argument `mode` that would make a program run as its file's owner is refused. With `flags`, the mode counts
 * only where that argument makes a file. */
static void without_suid(struct program *program, int number, int flags, int mode) {
    enum { SUID_SGID = 06000, MAKES = 0100 /* O_CREAT */ | 020000000 /* O_TMPFILE without O_DIRECTORY */ };
    add(program, BPF_JMP | BPF_JEQ | BPF_K, 0, flags < 0 ? 4 : 6, (unsigned int)number);
    if (flags >= 0) {
        load(program, offsetof(struct seccomp_data, args) + 8 * (size_t)flags);
        add(program, BPF_JMP | BPF_JSET | BPF_K, 0, 3, MAKES);
    }
    load(program, offsetof(struct seccomp_data, args) + 8 * (size_t)mode);
    add(program, BPF_JMP | BPF_JSET | BPF_K, 0, 1, SUID_SGID);
    answer(program, SECCOMP_RET_ERRNO | EPERM);
    answer(program, SECCOMP_RET_ALLOW);
}

/* Only a named pipe, with permissions and nothing else. */
static void only_pipes(struct program *program, int number, int mode) {
    add(program, BPF_JMP | BPF_JEQ | BPF_K, 0, 5, (unsigned int)number);
    load(program, offsetof(struct seccomp_data, args) + 8 * (size_t)mode);
    add(program, BPF_ALU | BPF_AND | BPF_K, 0, 0, 0177000);
    add(program, BPF_JMP | BPF_JEQ | BPF_K, 0, 1, 0010000 /* S_IFIFO */);
    answer(program, SECCOMP_RET_ALLOW);
    answer(program, SECCOMP_RET_ERRNO | EPERM);
}

static const unsigned int NO = SECCOMP_RET_ERRNO | EPERM;
#define DATA(member) offsetof(struct seccomp_data, member)

static void build(struct program *program, int sockets) {
    load(program, DATA(arch));
    add(program, BPF_JMP | BPF_JEQ | BPF_K, 1, 0, KRUX_ARCH);
    answer(program, SECCOMP_RET_KILL_PROCESS);
    load(program, DATA(nr));
#if defined(__x86_64__)
    /* The x32 way in. */
    add(program, BPF_JMP | BPF_JGE | BPF_K, 0, 1, 0x40000000);
    answer(program, SECCOMP_RET_KILL_PROCESS);
#endif
    /* New namespaces, by clone. Its flags are the first argument on both architectures. */
    add(program, BPF_JMP | BPF_JEQ | BPF_K, 0, 4, SYS_clone);
    load(program, DATA(args[0]));
    add(program, BPF_JMP | BPF_JSET | BPF_K, 0, 1,
        CLONE_NEWNS | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP);
    answer(program, NO);
    answer(program, SECCOMP_RET_ALLOW);
    when(program, SYS_clone3, SECCOMP_RET_ERRNO | ENOSYS);
    /* Without a network namespace there are no sockets at all but pairs. */
    if (!sockets) when(program, SYS_socket, SECCOMP_RET_ERRNO | EACCES);
    /* Sockets of this machine's own kinds, of the internet, and the one that lists interfaces. */
    add(program, BPF_JMP | BPF_JEQ | BPF_K, 0, 9, SYS_socket);
    load(program, DATA(args[0]));
    add(program, BPF_JMP | BPF_JEQ | BPF_K, 5, 0, AF_UNIX);
    add(program, BPF_JMP | BPF_JEQ | BPF_K, 4, 0, AF_INET);
    add(program, BPF_JMP | BPF_JEQ | BPF_K, 3, 0, AF_INET6);
    add(program, BPF_JMP | BPF_JEQ | BPF_K, 0, 3, AF_NETLINK);
    load(program, DATA(args[2]));
    add(program, BPF_JMP | BPF_JEQ | BPF_K, 0, 1, 0 /* NETLINK_ROUTE */);
    answer(program, SECCOMP_RET_ALLOW);
    answer(program, SECCOMP_RET_ERRNO | EAFNOSUPPORT);
    /* Typing into a terminal as if a person did. */
    add(program, BPF_JMP | BPF_JEQ | BPF_K, 0, 5, SYS_ioctl);
    load(program, DATA(args[1]));
    add(program, BPF_JMP | BPF_JEQ | BPF_K, 1, 0, 0x5412 /* TIOCSTI */);
    add(program, BPF_JMP | BPF_JEQ | BPF_K, 0, 1, 0x541C /* TIOCLINUX */);
    answer(program, NO);
    answer(program, SECCOMP_RET_ALLOW);
    /* Linux as it is, by whatever word length, or asking what it is: no other system's rules, no fixed addresses. */
    add(program, BPF_JMP | BPF_JEQ | BPF_K, 0, 6, SYS_personality);
    load(program, DATA(args[0]));
    add(program, BPF_JMP | BPF_JEQ | BPF_K, 2, 0, 0);
    add(program, BPF_JMP | BPF_JEQ | BPF_K, 1, 0, 8 /* PER_LINUX32 */);
    add(program, BPF_JMP | BPF_JEQ | BPF_K, 0, 1, 0xFFFFFFFF);
    answer(program, SECCOMP_RET_ALLOW);
    answer(program, NO);
    /* openat2 hides its mode behind a pointer, and gets ENOSYS as fchmodat2 does. */
    without_suid(program, SYS_openat, 2, 3);
    without_suid(program, SYS_fchmod, -1, 1);
    without_suid(program, SYS_fchmodat, -1, 2);
    only_pipes(program, SYS_mknodat, 2);
#if defined(__x86_64__)
    without_suid(program, SYS_open, 1, 2);
    without_suid(program, SYS_creat, -1, 1);
    without_suid(program, SYS_chmod, -1, 1);
    only_pipes(program, SYS_mknod, 1);
#endif
    for (size_t index = 0; index < COUNT; index++) when(program, allowed[index], SECCOMP_RET_ALLOW);
    for (size_t index = 0; index < REFUSED; index++) when(program, refused[index], NO);
    answer(program, SECCOMP_RET_ERRNO | ENOSYS);
}

int krux_apply_seccomp(int sockets) {
    static struct program program;
    program.length = 0;
    build(&program, sockets);
    struct sock_fprog filter = {program.length, program.code};
    /* Speculation is left to the machine's own settings, as for every other process. */
    long result = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW, &filter);
    if (result < 0 && errno == EINVAL) result = prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter, 0, 0);
    return result < 0 ? -errno : 0;
}
