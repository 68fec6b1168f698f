"""The entry: `saadi`, `python -m saadi`, `torchrun -m saadi`. What goes wrong becomes one line and an exit code."""

from __future__ import annotations

import errno
import signal
import sys
from types import FrameType
from typing import NoReturn

import typer

from saadi.cli import app
from saadi.errors import BadInput, Interrupted


def _terminate(signal_number: int, frame: FrameType | None) -> NoReturn:
    raise Interrupted


def main() -> None:
    """Run the command; turn what a user can mend into one line and exit code 2, an interruption into 3."""
    for stop in (signal.SIGINT, signal.SIGTERM):  # SIGINT too: typer would make a KeyboardInterrupt exit code 130
        signal.signal(stop, _terminate)
    try:
        # Not standalone, typer returns the code of a `typer.Exit`, and None from a command that ran to its end.
        sys.exit(app(sys.argv[1:] or ["--help"], standalone_mode=False))
    except BadInput as error:
        sys.exit(_complain(str(error), 2))
    except typer.TyperException as error:  # a usage error
        sys.exit(_complain(f"{error.format_message().rstrip('.')}; see --help", 2))
    except (Interrupted, typer.Abort):
        sys.exit(_complain("interrupted; the same command resumes", 3))
    except Exception as error:
        if _disk_is_full(error):
            full = f"the disk is full ({getattr(error, 'filename', None) or 'while writing'})"
            sys.exit(_complain(f"{full}; free some space, then the same command resumes", 2))
        if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            sys.exit(_complain(f"{error.filename}: no permission to write; choose another folder, or change that", 2))
        raise


def _disk_is_full(error: Exception) -> bool:
    codes = (errno.ENOSPC, errno.EDQUOT)
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in codes
    return any(f"(os error {code})" in str(error) for code in codes)  # libraries in Rust give no number


def _complain(message: str, code: int) -> int:
    line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in " ".join(message.split()))  # not what a name bids
    print(f"saadi: {line}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
