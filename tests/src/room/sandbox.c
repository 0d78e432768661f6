/* Tries what the unit of the daemon forbids and an ordinary user may do, from within the unit and from without.
 * `sandbox FILE` writes a line each to FILE: a name, and the errno (0: it worked), the signal (as -N) or the value. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

static char file[PATH_MAX];

static int change_personality(void) { return personality(ADDR_NO_RANDOMIZE); }
static int new_namespace(void) { return unshare(CLONE_NEWUSER); }
static int set_uid_bit(void) { return chmod(file, 04700); }
static int change_owner(void) { return chown(file, getuid(), getgid()); }
static int be_traced(void) { return ptrace(PTRACE_TRACEME, 0, 0, 0); }
/* EFAULT: allowed, at another address. */
static int memory_of_another(void) {
	char byte;
	struct iovec here = {&byte, 1}, there = {(void *)16, 1};
	return process_vm_readv(getppid(), &here, 1, &there, 1, 0) < 0 && errno != EFAULT ? -1 : 0;
}
/* For this process alone, which any user may ask for. */
static int page_faults(void) { return (int)syscall(SYS_userfaultfd, O_CLOEXEC | 1); }
/* EINVAL, EFAULT: allowed, with other parameters; a kernel may have it switched off. */
static int ring(void) { return syscall(SYS_io_uring_setup, 1, NULL) < 0 && errno == EPERM ? -1 : 0; }
static int compared(void) { return syscall(SYS_kcmp, getpid(), getppid(), 1, 0, 0) < 0 ? -1 : 0; }
static int change_scheduler(void) {
	struct sched_param none = {0};
	return sched_setscheduler(0, SCHED_BATCH, &none);
}
static int packet_socket(void) { return socket(AF_PACKET, SOCK_DGRAM, 0); }
static int unix_socket(void) { return socket(AF_UNIX, SOCK_STREAM, 0); }
static int inet_socket(void) { return socket(AF_INET, SOCK_STREAM, 0); }
static int netlink_socket(void) { return socket(AF_NETLINK, SOCK_DGRAM, 0); }
static int exe_of_another(void) {
	char path[64], target[PATH_MAX];
	snprintf(path, sizeof path, "/proc/%d/exe", getppid());
	return (int)readlink(path, target, sizeof target);
}
#ifdef __x86_64__
static int foreign_call(void) {
	long pid = 20; /* getpid(2) of i386 */
	__asm__ volatile("int $0x80" : "+a"(pid) : : "r8", "r9", "r10", "r11", "memory");
	return pid > 0 ? 0 : -1;
}
#endif

/* In a process of its own, which may die of it. The parent whose program is read is then this process. */
static void attempt(FILE *out, const char *name, int (*call)(void)) {
	int status = 0;
	fflush(out);
	pid_t child = fork();
	if (child == 0) {
		errno = 0;
		_exit(call() < 0 ? errno : 0);
	}
	waitpid(child, &status, 0);
	fprintf(out, "%s %d\n", name, WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status));
}

int main(int argc, char **argv) {
	if (argc != 2) return 2;
	FILE *out = fopen(argv[1], "w");
	snprintf(file, sizeof file, "%s.victim", argv[1]);
	int victim = open(file, O_CREAT | O_WRONLY, 0600);
	if (!out || victim < 0) return 1;

	struct rlimit files, core;
	getrlimit(RLIMIT_NOFILE, &files);
	getrlimit(RLIMIT_CORE, &core);
	mode_t mask = umask(0);
	fprintf(out, "no_new_privileges %d\n", prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
	fprintf(out, "files %lld\ncore %lld\numask %d\n", (long long)files.rlim_max, (long long)core.rlim_max, (int)mask);
	attempt(out, "personality", change_personality);
	attempt(out, "namespace", new_namespace);
	attempt(out, "set_uid_bit", set_uid_bit);
	attempt(out, "owner", change_owner);
	attempt(out, "traced", be_traced);
	attempt(out, "memory_of_another", memory_of_another);
	attempt(out, "page_faults", page_faults);
	attempt(out, "ring", ring);
	attempt(out, "compared", compared);
	attempt(out, "scheduler", change_scheduler);
	attempt(out, "packet_socket", packet_socket);
	attempt(out, "unix_socket", unix_socket);
	attempt(out, "inet_socket", inet_socket);
	attempt(out, "netlink_socket", netlink_socket);
	attempt(out, "exe_of_another", exe_of_another);
#ifdef __x86_64__
	attempt(out, "foreign_call", foreign_call);
#endif
	unlink(file);
	return fclose(out) ? 1 : 0;
}
