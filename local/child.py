"""`python -m local.child MODULE [ARGUMENTS]`: runs a module as `python -m` does, and ends it when its parent has gone.

Only the parent holds the other end of standard input, so that end closes however the parent dies.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading


def _end_with_parent() -> None:
    # Not sys.stdin: a thread that waits in there keeps the interpreter from shutting down.
    while os.read(0, 1):
        continue
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=_end_with_parent, daemon=True).start()
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
