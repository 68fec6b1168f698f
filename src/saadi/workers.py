"""Work in independent pieces, side by side in processes of one thread: small networks gain little from more threads.

A job is a public function `do(context, out, **arguments)` that lays files into the folder `out`; its arguments are
JSON. Jobs and answers are lines of JSON: no pickle, and a script that calls `saadi.run` needs no main guard. A worker
whose parent is gone reads the end of its input and stops.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import torch

from saadi.config import RunConfig, load_config
from saadi.errors import BadInput
from saadi.runtime import device_of, prepare_runtime

MOST = 8
"""More processes would rather fill the memory than save time."""

Kept = TypeVar("Kept")
Fetch = Callable[[Path], None]
"""Waits for a job and has its files laid into a folder."""


class Context:
    """What a job knows of the run, and what it keeps for the next one."""

    def __init__(self, root: Path, config: RunConfig) -> None:
        self.root, self.config = root, config
        self._kept: dict[str, tuple[Any, Any]] = {}

    def keep(self, name: str, key: Any, make: Callable[[], Kept]) -> Kept:
        """What was made under `name` the last time, if `key` is the same; else what `make` makes now."""
        if name not in self._kept or self._kept[name][0] != key:
            self._kept.pop(name, None)  # not two of them in memory
            self._kept[name] = key, make()
        value: Kept = self._kept[name][1]
        return value


def crew_size(config: RunConfig) -> int:
    """How many processes share a run's jobs; 0: none, the run does them itself."""
    threads = torch.get_num_threads() if device_of(config).type == "cpu" else 1
    return min(threads, MOST) if threads > 1 else 0


class Crew:
    """Does the jobs of the run in `root`: on a CPU with several threads, in as many processes of one thread; else here.
    A CPU's results depend neither on the processes' number nor on the jobs' order.

    Processes start when first needed; on `leave` they are killed, and what they had not finished is left undone. One
    may outlive a parent that was killed, so each job writes into a folder of its own, named after the parent.
    """

    def __init__(self, root: Path, config: RunConfig) -> None:
        self.count = crew_size(config)
        self.peak_memory = 0
        """Bytes that all processes took at their peak, at most."""
        self._context, self._parts, self._jobs = Context(root, config), root / ".parts", 0
        self._threads = ThreadPoolExecutor(max(self.count, 1))
        self._own = threading.local()
        self._processes: list[subprocess.Popen[str]] = []

    def job(self, do: Callable[..., None], **arguments: Any) -> Fetch:
        """Queue a job. Its `Fetch` raises `BadInput` if the job did or the process died; without processes, it is then
        that the job is done."""
        if not self.count:
            return lambda folder: do(self._context, folder, **arguments)
        part = self._parts / f"{os.getpid()}-{self._jobs}"
        self._jobs += 1
        line = {"module": do.__module__, "name": do.__name__, "out": str(part), "arguments": arguments}
        answer: Future[dict[str, Any]] = self._threads.submit(self._ask, json.dumps(line))

        def fetch(folder: Path) -> None:
            self.peak_memory = max(self.peak_memory, self.count * int(answer.result()["peak_memory"]))
            for path in part.iterdir():
                path.replace(folder / path.name)
            part.rmdir()

        return fetch

    def _process(self) -> subprocess.Popen[str]:
        process: subprocess.Popen[str] | None = getattr(self._own, "process", None)
        if process is None:
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
            command = [sys.executable, "-m", "saadi.workers", str(self._context.root)]
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
            )
            self._own.process = process
            self._processes.append(process)
        return process

    def _ask(self, job: str) -> dict[str, Any]:
        process = self._process()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(job + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise BadInput(
                f"a worker process ended (exit code {process.wait()}), perhaps for want of memory; "
                "the same command resumes; --set threads=1 needs less"
            )
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise BadInput(answer["error"])
        return answer

    def leave(self) -> None:
        """Stop all that is going on, and clear away what is unfinished, of an earlier crew as well."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for process in self._processes:
            process.kill()
            process.wait()
        self._threads.shutdown()
        shutil.rmtree(self._parts, ignore_errors=True)


def work(root: Path) -> None:
    """The worker's side: do each job on standard input, with one thread, until the input ends.

    What libraries print goes to standard error. An interrupt is the parent's to handle.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    config = load_config(root / "config.yaml")
    prepare_runtime(config)
    torch.set_num_threads(1)
    context = Context(root, config)
    for line in sys.stdin:
        job = json.loads(line)
        answer: dict[str, Any]
        try:
            out = Path(job["out"])
            out.mkdir(parents=True)
            getattr(importlib.import_module(job["module"]), job["name"])(context, out, **job["arguments"])
            answer = {"peak_memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}
        except (BadInput, OSError) as error:  # a full disk, too, gets its line
            answer = {"error": str(error)}
        try:
            answers.write(json.dumps(answer) + "\n")
            answers.flush()
        except BrokenPipeError:  # the parent was killed
            os._exit(0)


if __name__ == "__main__":
    work(Path(sys.argv[1]))
