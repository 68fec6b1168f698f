"""Work in independent pieces, side by side in processes of one thread: small networks gain little from more threads.

A job is a public function `do(context, out, **arguments)` that lays files into the folder `out`; its arguments are
JSON. Jobs and answers are lines of JSON: no pickle, and a script that calls `saadi.run` needs no main guard. A worker
whose parent is gone sees its input end and is gone, too.
"""

from __future__ import annotations

import importlib
import json
import os
import queue
import secrets
import shutil
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError

from saadi.config import RunConfig
from saadi.configfile import load_config
from saadi.errors import BadInput, Diverged
from saadi.runtime import device_of, peak_memory, prepare_runtime
from saadi.team import ALONE, Team

MOST = 8
"""More processes would rather fill the memory than save time."""

Kept = TypeVar("Kept")
Fetch = Callable[[Path], None]
"""Waits for a job and has its files laid into a folder."""

_ERRORS = {kind.__name__: kind for kind in (BadInput, Diverged, OSError, SafetensorError, RuntimeError)}
"""What a worker's error becomes in its parent, where the command line knows all but the last."""


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

    def forget(self, name: str) -> None:
        """Keep it no longer."""
        self._kept.pop(name, None)


def crew_size(config: RunConfig) -> int:
    """How many worker processes share a run's jobs; 0: none, the run does them itself."""
    threads = torch.get_num_threads() if device_of(config).type == "cpu" else 1
    return min(threads, MOST) if threads > 1 else 0


class Crew:
    """Does the jobs of the run in `root`: on a CPU with several threads, in as many processes of one thread; else here.
    A CPU's results depend neither on the processes' number nor on the jobs' order. In a team of several each process
    does every n-th job itself; all of them queue and fetch the same ones in the same order, and the leader lays files.

    Processes start when first needed; on `leave` they are killed, and what they had not finished is left undone. One
    may outlive a parent that was killed for a moment, so each job writes into a folder that no other crew knows.
    """

    def __init__(self, root: Path, config: RunConfig, team: Team = ALONE) -> None:
        self.count = crew_size(config) if team.size == 1 else 0
        self._team, self._shared, self._done = team, list[Callable[[Path], None]](), 0
        self._context, self._parts, self._jobs = Context(root, config), root / ".parts", 0
        self._token = secrets.token_hex(4)
        self._threads = ThreadPoolExecutor(max(self.count, 1))
        self._own = threading.local()
        self._lock, self._gone = threading.Lock(), False
        self._processes: list[subprocess.Popen[str]] = []
        self._peaks: dict[int, int] = {}
        if team.leads:
            shutil.rmtree(self._parts, ignore_errors=True)  # of a run that was killed

    @property
    def peak_memory(self) -> int:
        """Bytes that the processes took at their peaks, all together."""
        return sum(self._peaks.values())

    def job(self, do: Callable[..., None], **arguments: Any) -> Fetch:
        """Queue a job. Its `Fetch` raises what the job did: `BadInput`, `OSError`, `SafetensorError`; `BadInput` if the
        process died; else, for a bug, `RuntimeError`. Without processes the job is done when it is fetched."""
        if self._team.size > 1:
            self._shared.append(lambda folder: do(self._context, folder, **arguments))
            return partial(self._fetch_shared, len(self._shared) - 1)
        return self.own_job(do, **arguments)

    def own_job(self, do: Callable[..., None], **arguments: Any) -> Fetch:
        """As `job`, but one process's own: of a team, who queues it does it itself."""
        if not self.count:
            return lambda folder: do(self._context, folder, **arguments)
        part = self._parts / f"{self._token}-{self._jobs}"
        self._jobs += 1
        line = {"module": do.__module__, "name": do.__name__, "out": str(part), "arguments": arguments}
        answer: Future[None] = self._threads.submit(self._ask, json.dumps(line))

        def fetch(folder: Path) -> None:
            answer.result()
            _lay(part, folder)

        return fetch

    @contextmanager
    def place(self) -> Iterator[Path]:
        """An empty folder for a job's files that are wanted for a moment only."""
        folder = self._parts / f"{self._token}-place"
        folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder)

    def _fetch_shared(self, number: int, folder: Path) -> None:
        """Have job `number` of the team's laid into a folder, once each process has done one of the next few."""
        team = self._team
        if number == self._done:
            self._done = min(number + team.size, len(self._shared))
            own = number + team.rank
            if own < self._done:
                part = self._parts / f"team-{own}"
                part.mkdir(parents=True)
                self._shared[own](part)
            team.wait()
        if team.leads:
            _lay(self._parts / f"team-{number}", folder)
        if number == self._done - 1:
            team.wait()

    def forget(self, name: str) -> None:
        """Drop what jobs that were done here have kept under `name`: on a GPU, memory that training needs."""
        self._context.forget(name)

    def _process(self) -> subprocess.Popen[str]:
        process: subprocess.Popen[str] | None = getattr(self._own, "process", None)
        if process is not None:
            return process
        places = os.pathsep.join(place or str(Path.cwd()) for place in sys.path)
        environment = {**os.environ, "PYTHONPATH": places, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-P", "-m", "saadi.workers", str(self._context.root)]
        with self._lock:  # or `leave` might miss it
            if self._gone:
                raise BadInput("the run was left")
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
                process_group=0,  # an interrupt at the keyboard is the parent's to handle
            )  # fmt: skip
            self._processes.append(process)
        self._own.process = process
        return process

    def _ask(self, job: str) -> None:
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
            code = process.wait()
            why = "killed, perhaps for want of memory" if code < 0 else f"exit code {code}"
            advice = "the same command resumes; with OMP_NUM_THREADS=1 in front it needs less memory"
            raise BadInput(f"a worker process ended ({why}); {advice}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise _ERRORS[answer["error"]](*answer["arguments"])
        self._peaks[process.pid] = answer["peak_memory"]

    def leave(self) -> None:
        """Stop all that is going on, and clear away what is unfinished."""
        with self._lock:
            self._gone = True
        self._threads.shutdown(wait=False, cancel_futures=True)
        for process in self._processes:
            process.kill()
            process.wait()
        self._threads.shutdown()
        if self._team.leads:
            shutil.rmtree(self._parts, ignore_errors=True)


def _lay(part: Path, folder: Path) -> None:
    for path in part.iterdir():
        path.replace(folder / path.name)
    part.rmdir()


def _lines() -> Iterator[str]:
    """Lines of standard input; the process ends with it, in the midst of a job as well: the parent is gone."""
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    def read() -> None:
        for line in sys.stdin:
            lines.put(line)
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    while True:
        yield lines.get()


def _done(context: Context, job: dict[str, Any]) -> dict[str, Any]:
    """The answer to a job, once it is done."""
    try:
        out = Path(job["out"])
        out.mkdir(parents=True)
        getattr(importlib.import_module(job["module"]), job["name"])(context, out, **job["arguments"])
    except (BadInput, SafetensorError) as error:
        return {"error": type(error).__name__, "arguments": [str(error)]}
    except OSError as error:  # of any kind; the number says which
        return {"error": "OSError", "arguments": [error.errno, error.strerror or str(error), error.filename]}
    except Exception:  # a bug's traceback belongs to the parent, whatever it is
        return {"error": "RuntimeError", "arguments": [traceback.format_exc()]}
    return {"peak_memory": peak_memory()}


def work(root: Path) -> None:
    """The worker's side: do each job on standard input, with one thread. What libraries print is standard error's."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    config = load_config(root / "config.yaml")
    prepare_runtime(config)
    torch.set_num_threads(1)
    context = Context(root, config)
    for line in _lines():
        answer = _done(context, json.loads(line))
        try:
            answers.write(json.dumps(answer) + "\n")
            answers.flush()
        except BrokenPipeError:  # the parent was killed
            os._exit(0)


if __name__ == "__main__":
    work(Path(sys.argv[1]))
