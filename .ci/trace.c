/* Runs a program and writes down which of its functions run, each once, in the order of their first calls: a breakpoint at the start of
 * every function, taken away when it is met. For .ci/layout, which puts this in the program's place.
 *
 * $TRACE_PROGRAMS  for each HALF a program HALF, with symbols and position independent, and beside it HALF.list: the addresses of its
 *                  functions within the file, hexadecimal
 * $TRACE_DIR       where the addresses of those that ran are written: a file for each half and node (argv: HALF ... --node NODE ...) */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

static unsigned long *functions;
static unsigned char *first_bytes;
static int count, memory;
static pid_t child;

static int by_address(const void *one, const void *other)
{
	unsigned long a = *(const unsigned long *)one, b = *(const unsigned long *)other;
	return (a > b) - (a < b);
}

static void pass_on(int number)
{
	kill(child, number);
}

static FILE *must_open(const char *path, const char *mode)
{
	FILE *file = fopen(path, mode);
	if (!file) {
		perror(path);
		exit(127);
	}
	return file;
}

static void read_functions(const char *path)
{
	FILE *file = must_open(path, "r");
	unsigned long address;
	int room = 0;
	while (fscanf(file, "%lx", &address) == 1) {
		if (count == room)
			functions = realloc(functions, (room = room ? room * 2 : 1024) * sizeof *functions);
		functions[count++] = address;
	}
	fclose(file);
	qsort(functions, count, sizeof *functions, by_address);
	first_bytes = calloc(count, 1);
}

/* Where the program was loaded; opens its memory and sets all breakpoints. */
static unsigned long set_breakpoints(const char *program)
{
	char path[64], line[1024];
	unsigned long base = 0;
	snprintf(path, sizeof path, "/proc/%d/maps", child);
	FILE *maps = must_open(path, "r");
	while (!base && fgets(line, sizeof line, maps))
		if (strstr(line, program))
			base = strtoul(line, NULL, 16);
	fclose(maps);
	snprintf(path, sizeof path, "/proc/%d/mem", child);
	memory = open(path, O_RDWR);
	for (int i = 0; i < count; i++) {
		if (pread(memory, &first_bytes[i], 1, base + functions[i]) != 1 || pwrite(memory, "\xcc", 1, base + functions[i]) != 1) {
			perror("breakpoint");
			exit(127);
		}
	}
	return base;
}

/* A thread has met a breakpoint, unless it is a trap of somebody else's. */
static void met(pid_t thread, unsigned long base, FILE *out)
{
	struct user_regs_struct registers;
	ptrace(PTRACE_GETREGS, thread, 0, &registers);
	unsigned long address = registers.rip - 1 - base;
	unsigned long *found = bsearch(&address, functions, count, sizeof *functions, by_address);
	if (!found)
		return;
	fprintf(out, "%lx\n", address);
	fflush(out);
	/* By way of the thread: a process that was just forked has a memory of its own. */
	errno = 0;
	long word = ptrace(PTRACE_PEEKTEXT, thread, base + address, 0);
	if (errno || ptrace(PTRACE_POKETEXT, thread, base + address, (word & ~0xffL) | first_bytes[found - functions]))
		perror("breakpoint");
	registers.rip--;
	ptrace(PTRACE_SETREGS, thread, 0, &registers);
}

int main(int argc, char **argv)
{
	const char *half = argc > 1 ? argv[1] : "none", *node = "none";
	char path[600], program[512];
	int status;
	for (int i = 1; i + 1 < argc; i++)
		if (!strcmp(argv[i], "--node"))
			node = argv[i + 1];
	snprintf(path, sizeof path, "%s/%s.%s", getenv("TRACE_DIR"), half, node);
	FILE *out = must_open(path, "a");
	snprintf(program, sizeof program, "%s/%s", getenv("TRACE_PROGRAMS"), half);
	snprintf(path, sizeof path, "%s.list", program);
	read_functions(path);
	child = fork();
	if (child == 0) {
		ptrace(PTRACE_TRACEME, 0, 0, 0);
		argv[0] = program;
		execv(program, argv);
		_exit(127);
	}
	waitpid(child, &status, 0);
	ptrace(PTRACE_SETOPTIONS, child, 0, PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_EXITKILL);
	unsigned long base = set_breakpoints(program);
	signal(SIGTERM, pass_on);
	signal(SIGINT, pass_on);
	ptrace(PTRACE_CONT, child, 0, 0);
	for (;;) {
		pid_t thread = waitpid(-1, &status, __WALL);
		if (thread < 0 && errno == EINTR)
			continue;
		if (thread < 0)
			return 127;
		if (WIFEXITED(status) || WIFSIGNALED(status)) {
			if (thread == child)
				return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
			continue;
		}
		int number = WSTOPSIG(status);
		if (number == SIGTRAP && status >> 16 == 0)
			met(thread, base, out);
		ptrace(PTRACE_CONT, thread, 0, number == SIGTRAP || number == SIGSTOP ? 0 : number);
	}
}
