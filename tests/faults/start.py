"""Start a script of the repository as a user does, but with a checkpoint every 0.2 s.

    python tests/faults/start.py SCRIPT [FLAG ...]

With KILL_AT_WRITE=N in the environment, the first process that has come to its N-th write of a file kills itself and
all others of its group by SIGKILL, before or after the file gets its name.
"""

import importlib.util
import os
import signal
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from common.support import checkpoints

checkpoints.INTERVAL = 0.2  # worker processes import this file too

if kill_at := int(os.environ.get("KILL_AT_WRITE", 0)):
    calls = []

    def killed(function):
        def call(*arguments):
            calls.append(1)
            if len(calls) == kill_at:
                os.killpg(os.getpgid(0), signal.SIGKILL)
            return function(*arguments)

        return call

    os.fsync, os.replace = killed(os.fsync), killed(os.replace)

if __name__ == "__main__":
    sys.argv = sys.argv[1:]
    script = Path(sys.argv[0])
    spec = importlib.util.spec_from_file_location("started", script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    from common import cli

    cli.entry_point(module.main)
