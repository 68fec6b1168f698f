"""Work in independent pieces, side by side in processes of one thread: small networks gain little from more threads.

Jobs and answers are lines of JSON: no pickle, and a script that calls `saadi.run` needs no main guard. A worker whose
parent is gone reads the end of its input and stops.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any

from saadi.errors import BadInput

MOST = 8
"""More processes would rather fill the memory than save time."""


class Workers:
    """A context manager over `count` processes of `python -m module arguments`, which call `serve`; 0: none is asked.

    They start when first needed; on leaving they are killed, and what they had not finished is left undone.
    """

    def __init__(self, module: str, arguments: Sequence[str], count: int) -> None:
        self._command = [sys.executable, "-m", module, *arguments]
        self._threads = ThreadPoolExecutor(max(count, 1))
        self._own = threading.local()
        self._processes: list[subprocess.Popen[str]] = []

    def submit(self, job: dict[str, Any]) -> Future[dict[str, Any]]:
        """Queue a job; the future holds the answer, or raises `BadInput` if the job did or the process died."""
        return self._threads.submit(self._ask, job)

    def _process(self) -> subprocess.Popen[str]:
        process: subprocess.Popen[str] | None = getattr(self._own, "process", None)
        if process is None:
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
            process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
            )
            self._own.process = process
            self._processes.append(process)
        return process

    def _ask(self, job: dict[str, Any]) -> dict[str, Any]:
        process = self._process()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(job) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise BadInput(
                f"a training process ended (exit code {process.wait()}), perhaps for want of memory; "
                "the same command resumes; --set threads=1 needs less"
            )
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise BadInput(answer["error"])
        return answer

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        for process in self._processes:
            process.kill()
            process.wait()
        self._threads.shutdown()


def serve(work: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """The worker's side: answer each job on standard input with what `work` makes of it, until the input ends.

    What libraries print goes to standard error. An interrupt is the parent's to handle.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        try:
            answer = work(json.loads(line))
        except (BadInput, OSError) as error:  # a full disk, too, gets its line
            answer = {"error": str(error)}
        try:
            answers.write(json.dumps(answer) + "\n")
            answers.flush()
        except BrokenPipeError:  # the parent was killed
            os._exit(0)
