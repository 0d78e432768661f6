/* Tries to look into another process of the same user, in every way that the system has. `spy PID FILE` writes a line each to
 * FILE: a name, and the errno (0: it worked). */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define KCMP_VM 1

static pid_t pid;
static char path[PATH_MAX];

/* Whether a byte can be read. The memory is read where the program lies, as its own map of us would say. */
static int file(const char *name) {
	char byte;
	snprintf(path, sizeof path, "/proc/%d/%s", pid, name);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) return errno;
	ssize_t count = read(fd, &byte, 1);
	int failed = count < 0 ? errno : 0;
	close(fd);
	return failed;
}

/* Memory has no byte at 0: to open it is the right that counts. */
static int memory(int flags) {
	snprintf(path, sizeof path, "/proc/%d/mem", pid);
	int fd = open(path, flags | O_CLOEXEC);
	return fd < 0 ? errno : (close(fd), 0);
}

static int folder(const char *name) {
	snprintf(path, sizeof path, "/proc/%d/%s", pid, name);
	DIR *entries = opendir(path);
	return entries ? (closedir(entries), 0) : errno;
}

static int link_of(const char *name) {
	char target[PATH_MAX];
	snprintf(path, sizeof path, "/proc/%d/%s", pid, name);
	return readlink(path, target, sizeof target) < 0 ? errno : 0;
}

/* EFAULT: it would have been allowed, at another address. */
static int copied(long call) {
	char byte = 0;
	struct iovec here = {&byte, 1}, there = {(void *)16, 1};
	return syscall(call, pid, &here, 1, &there, 1, 0) < 0 && errno != EFAULT ? errno : 0;
}

static int traced(long request) {
	if (syscall(SYS_ptrace, request, pid, 0, 0) < 0) return errno;
	if (request == PTRACE_ATTACH) waitpid(pid, NULL, __WALL);
	if (request == PTRACE_SEIZE && !syscall(SYS_ptrace, PTRACE_INTERRUPT, pid, 0, 0)) waitpid(pid, NULL, __WALL);
	syscall(SYS_ptrace, PTRACE_DETACH, pid, 0, 0);
	return 0;
}

static int descriptor(void) {
	int handle = (int)syscall(SYS_pidfd_open, pid, 0);
	return handle < 0 || syscall(SYS_pidfd_getfd, handle, 0, 0) < 0 ? errno : 0;
}

static int compared(void) { return syscall(SYS_kcmp, pid, getpid(), KCMP_VM, 0, 0) < 0 ? errno : 0; }

int main(int argc, char **argv) {
	if (argc != 3) return 2;
	pid = atoi(argv[1]);
	FILE *out = fopen(argv[2], "w");
	if (!out) return 1;
	static const char *files[] = {"environ", "maps", "smaps", "smaps_rollup", "auxv", "numa_maps", "io", "personality"};
	for (size_t i = 0; i < sizeof files / sizeof *files; i++) fprintf(out, "%s %d\n", files[i], file(files[i]));
	fprintf(out, "mem %d\nmem_written %d\n", memory(O_RDONLY), memory(O_WRONLY));
	fprintf(out, "fd %d\nfdinfo %d\nmap_files %d\n", folder("fd"), folder("fdinfo"), folder("map_files"));
	fprintf(out, "cwd %d\nexe %d\nfd_0 %d\n", link_of("cwd"), link_of("exe"), link_of("fd/0"));
	fprintf(out, "process_vm_readv %d\nprocess_vm_writev %d\n", copied(SYS_process_vm_readv), copied(SYS_process_vm_writev));
	fprintf(out, "pidfd_getfd %d\nkcmp %d\n", descriptor(), compared());
	fprintf(out, "attach %d\nseize %d\n", traced(PTRACE_ATTACH), traced(PTRACE_SEIZE));
	return fclose(out) ? 1 : 0;
}
