"""Kernels compiled in several processes at once: each keeps what it has made in the cache, where the others find it."""
import collections
import contextlib
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from fastnet.kernels.codegen import progress
from fastnet.kernels.codegen.cache import CACHE
from fastnet.kernels.codegen.digest import KERNELS
from fastnet.kernels.codegen.linking import ensure, is_at_hand
from fastnet.kernels.system import available_cores

Job = tuple[str, str]  # for `ensure`: the name of an `AddressedKernel`, and the type of its elements or "none"
_CHILD = "import sys; sys.path[:] = {path!r}; from {module} import serve; serve()"
_DONE = "fastnet: done\n"
_LEAST = 8  # kernels for which another process is worth its start: it imports Numba, and needs some of the same kernels


class CompilationError(RuntimeError):
    """A process that compiles has failed; it has said why on the error stream."""


class _Children:
    """Processes that compile what `take` gives them, until it raises IndexError."""

    def __init__(self, processes: int, take: Callable[[], Job], module: str = __name__, **options: Any) -> None:
        self.done: queue.SimpleQueue[Job | None] = queue.SimpleQueue()  # None for a process that is through
        self._take = take
        if os.name != "nt":
            options["start_new_session"] = True  # Ctrl-C is the caller's
        command = [sys.executable, "-c", _CHILD.format(path=sys.path, module=module)]
        self._processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options)
                           for _ in range(processes)]
        self._threads = [threading.Thread(target=self._hand_out, args=(one,), daemon=True) for one in self._processes]
        for thread in self._threads:
            thread.start()

    def _hand_out(self, process: subprocess.Popen[str]) -> None:
        """Give a process jobs, one at a time; the only thread that uses the pipes to it."""
        assert process.stdin is not None and process.stdout is not None
        with contextlib.suppress(IndexError, OSError):
            while True:
                job = self._take()
                print(*job, file=process.stdin, flush=True)
                if _DONE not in process.stdout:  # up to that line: a process may print something else when it starts
                    break
                self.done.put(job)
        self.done.put(None)
        with contextlib.suppress(OSError):
            process.stdin.close()  # which ends the process
        process.stdout.read()
        process.stdout.close()

    def __enter__(self) -> "_Children":
        return self

    def __exit__(self, *error: object) -> None:
        for process in self._processes:
            if error[0] is not None:
                process.kill()
        for thread, process in zip(self._threads, self._processes, strict=True):
            thread.join()
            process.wait()

    def finished(self) -> Iterator[Job]:
        """The jobs that are done, as long as a process is at work."""
        running = len(self._processes)
        while running:
            job = self.done.get()
            if job is None:
                running -= 1
            else:
                yield job


def compile_all(jobs: Iterable[Job], processes: int | None = None, module: str = __name__) -> Iterator[Job]:
    """Have processes, by default one for each core, do jobs; yields each one that is done.

    A job is a kernel to compile, unless `module` is another one: that has a function `serve`, which calls `serve` with what
    it does with a job. Kernels that others call should come first: a process that needs a kernel which is not in the cache
    yet compiles it, too.

    Raises
    ------
    CompilationError
        If a process fails.
    """
    waiting = collections.deque(jobs)
    missing = len(waiting)
    with _Children(min(processes or available_cores(), missing), waiting.popleft, module) as children:
        for job in children.finished():
            missing -= 1
            yield job
    if missing:
        raise CompilationError("the kernels could not be compiled.")


def ensure_all(jobs: Iterable[Job], cores: int) -> None:
    """Have kernels: this process compiles them in order, and others, where cores are free, from the end.

    Nothing depends on the others: this process compiles a kernel that they have not compiled when it needs it.
    """
    waiting = collections.deque(job for job in jobs if job[0].startswith(f"{KERNELS}.") and not is_at_hand(*job))
    processes = min(cores - 1, len(waiting) // _LEAST)
    if CACHE is None or processes < 1 or _busy() or getattr(sys, "frozen", False) or not sys.executable:
        return
    try:
        children = _Children(processes, waiting.pop, stderr=subprocess.DEVNULL)
    except OSError:  # no process may be started here
        return
    with children:
        with contextlib.suppress(IndexError):
            while True:
                ensure(*waiting.popleft())
        for _ in children.finished():
            pass


def _busy() -> bool:
    """Whether other processes want the cores, as far as the system says."""
    try:
        return os.getloadavg()[0] > (os.cpu_count() or 1) - 0.5  # this process has a core already
    except (AttributeError, OSError):  # Windows has no such number
        return False


def serve(do: Callable[[str, str], Any] = ensure) -> None:
    """Do the jobs that the lines of the standard input name, and answer each with a line."""
    progress.silence()
    for line in sys.stdin:
        do(*line.split())
        print(_DONE, end="", flush=True)
