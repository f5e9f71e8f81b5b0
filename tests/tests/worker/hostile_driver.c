// A graphics driver that tries, as soon as it is loaded, what no driver has any business doing, and writes down how each
// attempt ended: a line "NAME RESULT ERRNO" in the file named by HOSTILE_REPORT.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

static FILE *report;
static char cached_info[4096];

static void told(const char *name, long result) {
    fprintf(report, "%s %ld %d\n", name, result < 0 ? -1L : 0L, result < 0 ? errno : 0);
    errno = 0;
}

static long opened(const char *path, int flags) {
    int file = path ? open(path, flags | O_CLOEXEC, 0600) : -1;
    if (file >= 0) close(file);
    return file;
}

static void *another_thread(void *unused) {
    (void)unused;
    told("socket_in_a_thread", socket(AF_INET, SOCK_STREAM, 0));
    return NULL;
}

extern int pthread_create(unsigned long *, void *, void *(*)(void *), void *);
extern int pthread_join(unsigned long, void **);

__attribute__((constructor)) static void loaded(void) {
    const char *path = getenv("HOSTILE_REPORT");
    report = path ? fopen(path, "w") : NULL;
    if (!report) return;
    setvbuf(report, NULL, _IONBF, 0);

    told("socket_inet", socket(AF_INET, SOCK_DGRAM, 0));
    told("socket_unix", socket(AF_UNIX, SOCK_STREAM, 0));
    int pair[2];
    // Of the one kind that it may have, with a name that others could find, but with nobody at the other end.
    struct sockaddr_un name = {.sun_family = AF_UNIX, .sun_path = "\0nightjar-hostile"};
    snprintf(name.sun_path + 1, sizeof name.sun_path - 1, "nightjar-hostile-%d", getpid());
    int local = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    told("socket_without_ends", local);
    told("bind_it", bind(local, (struct sockaddr *)&name, sizeof name));
    told("listen_on_it", listen(local, 1));
    told("connect", connect(socket(AF_UNIX, SOCK_SEQPACKET, 0), (struct sockaddr *)&name, sizeof name));
    told("accept", accept4(local, NULL, NULL, SOCK_NONBLOCK));
    told("send", sendto(local, "x", 1, 0, (struct sockaddr *)&name, sizeof name));
    told("socketpair", socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    told("io_uring", syscall(SYS_io_uring_setup, 4, NULL));
    char *arguments[] = {"/bin/true", NULL};
    told("exec", execv("/bin/true", arguments));
    told("execveat", syscall(SYS_execveat, AT_FDCWD, "/bin/true", arguments, NULL, 0));
    told("ptrace_parent", ptrace(PTRACE_ATTACH, getppid(), NULL, NULL));
    told("kill_parent", kill(getppid(), 0));
    told("tgkill_parent", syscall(SYS_tgkill, getppid(), getppid(), 0));
    told("tgkill_itself", syscall(SYS_tgkill, getpid(), getpid(), 0));
    told("setsid", setsid());
    told("setpgid", setpgid(0, 0));
    told("unshare", unshare(CLONE_NEWUSER));
    told("bpf", syscall(SYS_bpf, 0, NULL, 0));
    told("perf", syscall(SYS_perf_event_open, NULL, 0, -1, -1, 0));
#ifdef __x86_64__
    // The same calls by their other numbers, where the kernel has them.
    told("x32_socket", syscall(0x40000000 + SYS_socket, AF_INET, SOCK_DGRAM, 0));
    told("x32_exec", syscall(0x40000000 + 520, "/bin/true", arguments, NULL));
#endif

    told("read_secret", opened(getenv("HOSTILE_SECRET"), O_RDONLY));
    told("read_identity", opened(getenv("HOSTILE_IDENTITY"), O_RDONLY));
    told("read_passwd", opened("/etc/passwd", O_RDONLY));
    char other[64];
    snprintf(other, sizeof other, "/proc/%d/environ", getppid());
    told("read_parents_environment", opened(other, O_RDONLY));
    told("write_secret", opened(getenv("HOSTILE_SECRET"), O_WRONLY));
    told("write_outside", opened(getenv("HOSTILE_NEW"), O_WRONLY | O_CREAT));
    told("write_blobs", opened(getenv("HOSTILE_BLOB"), O_WRONLY | O_CREAT));
    told("write_tmp", opened("/tmp/nightjar-hostile", O_WRONLY | O_CREAT));
    told("delete_secret", getenv("HOSTILE_SECRET") ? unlink(getenv("HOSTILE_SECRET")) : -1);
    told("open_terminal", opened("/dev/tty", O_RDWR));
    // What would lead its agent elsewhere, or keep it waiting, in the folder where it may write.
    const char *own = getenv("MESA_SHADER_CACHE_DIR");
    char link_to_it[4096], second[4096], fifo[4096], node[4096], folder_of_it[4096], plain[4096], moved[4096];
    snprintf(link_to_it, sizeof link_to_it, "%s/link", own ? own : "");
    snprintf(second, sizeof second, "%s/second", own ? own : "");
    snprintf(fifo, sizeof fifo, "%s/fifo", own ? own : "");
    snprintf(node, sizeof node, "%s/node", own ? own : "");
    snprintf(folder_of_it, sizeof folder_of_it, "%s/folder", own ? own : "");
    snprintf(plain, sizeof plain, "%s/plain", own ? own : "");
    snprintf(moved, sizeof moved, "%s/plain-2", own ? own : "");
    told("link_to_secret", symlink(getenv("HOSTILE_SECRET"), link_to_it));
    told("second_name_of_secret", link(getenv("HOSTILE_SECRET"), second));
    told("make_fifo", mkfifo(fifo, 0600));
    told("make_device", mknod(node, S_IFCHR | 0600, 0x103));
    told("own_folder", mkdir(folder_of_it, 0700));
    told("own_file", opened(plain, O_WRONLY | O_CREAT));
    told("second_name_of_own", link(plain, second));
    told("rename_own", rename(plain, moved));
    // What landlock does not see.
    const char *secret = getenv("HOSTILE_SECRET");
    struct timespec times[2] = {{0, 0}, {0, 0}};
    told("chmod_secret", chmod(secret, 0666));
    told("chmod_identity", chmod(getenv("HOSTILE_IDENTITY"), 0644));
    told("chown_secret", chown(secret, getuid(), getgid()));
    told("times_of_secret", utimensat(AT_FDCWD, secret, times, 0));
    told("mark_secret", setxattr(secret, "user.nightjar", "x", 1, 0));
    told("watch_secret", inotify_add_watch(inotify_init1(IN_CLOEXEC), secret, IN_OPEN));
    told("shared_memory", shmctl(0, SHM_INFO, (struct shmid_ds *)(void *)cached_info));
    struct rlimit limit = {4, 4};
    told("limit_parent", prlimit(getppid(), RLIMIT_NOFILE, NULL, &limit));
    told("slow_parent_down", setpriority(PRIO_PROCESS, getppid(), 19));
    told("slow_user_down", setpriority(PRIO_USER, 0, 19));
    told("slow_users_disk_down", syscall(SYS_ioprio_set, 3, 0, 3 << 13));
    told("bind_parent", sched_setaffinity(getppid(), 0, NULL));
    told("clone_a_world", syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, NULL, NULL, NULL, NULL));
    told("clone3", syscall(SYS_clone3, NULL, 0));

    // What drivers do need.
    told("read_itself", opened("/proc/self/maps", O_RDONLY));
    told("read_sys", opened("/sys/devices/system/cpu/online", O_RDONLY));
    told("read_library", opened("/usr/lib/os-release", O_RDONLY));
    void *code = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    told("executable_memory", mprotect(code, 4096, PROT_READ | PROT_EXEC));
    char cached[4096];
    const char *folder = getenv("MESA_SHADER_CACHE_DIR");
    snprintf(cached, sizeof cached, "%s/of-the-driver", folder ? folder : "");
    told("write_cache", opened(cached, O_WRONLY | O_CREAT));

    unsigned long thread;
    if (pthread_create(&thread, NULL, another_thread, NULL) == 0) pthread_join(thread, NULL);
    fclose(report);
}
