"""Write what a URL serves to standard output, and its content type, or what failed, to standard error.

python -I fetch.py URL MOST PATIENCE     MOST: bytes; PATIENCE: seconds without a byte until the host is given up

It is a process of its own because a process can be ended: a host that sends its headers byte by byte, or never stops
sending them, holds whoever reads them. It ends by itself when its standard input is closed, as it is when the process
that started it dies.
"""

import os
import sys
import threading
import urllib.request


def watch_parent():
    sys.stdin.read()
    os._exit(1)


def fetch(url, most, patience):
    with urllib.request.urlopen(url, timeout=patience) as response:
        while most > 0 and (chunk := response.read1(min(most, 1 << 16))):
            sys.stdout.buffer.write(chunk)
            sys.stdout.buffer.flush()
            most -= len(chunk)
        return response.headers.get("Content-Type", "no type")


threading.Thread(target=watch_parent, daemon=True).start()
status = 0
try:
    answer = fetch(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
except Exception as error:  # whatever a host's answer may cause; the line says it
    answer, status = getattr(error, "reason", error), 1
    answer = str(answer).strip() or type(error).__name__
sys.stderr.write(ascii(str(answer))[1:-1][:200])
sys.stderr.flush()
os._exit(status)  # without waiting for the thread
