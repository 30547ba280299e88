"""Hosts that misbehave: each stands on the loopback interface for the first source of CIFAR-10, a good one follows."""

import concurrent.futures
import contextlib
import hashlib
import socket
import subprocess
import sys
import threading
import time

import pytest
from torchvision.datasets import CIFAR10

from common import data
from common.support import download
from common.support.errors import UserError
from tests.conftest import assert_single_error_line
from tests.small_cifar import archive, md5

NAME = "cifar-10-python.tar.gz"
REMOTE = download._remote
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/gzip\r\n"
BOUND = 60  # seconds, many more than PATIENCE + START: a machine may be busy


def trickle(send, raw, count=600):
    """Send `raw` over and over, a piece every 50 ms, for half a minute or until the client has left."""
    for _ in range(count):
        send(raw)
        time.sleep(0.05)


def chunked(raw):
    return b"%x\r\n%b\r\n" % (len(raw), raw)


def redirect(location):
    return f"HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()


def status(line):
    return lambda send, raw, url: send(f"HTTP/1.1 {line}\r\nContent-Length: 0\r\n\r\n".encode("latin-1"))


def serve_good(send, raw, url):
    send(OK + b"Content-Length: %d\r\n\r\n" % len(raw) + raw)


def serve_slow(send, raw, url):
    send(OK + b"\r\n")
    for start in range(0, len(raw), len(raw) // 20):
        send(raw[start : start + len(raw) // 20])
        time.sleep(0.02)


def serve_trickled_chunk(send, raw, url):
    send(OK + b"Transfer-Encoding: chunked\r\n\r\n")
    trickle(send, b"0")


def serve_endless(send, raw, url):
    send(OK + b"\r\n" + raw)
    while True:
        send(bytes(1 << 16))


# For each kind of host: what it does, (send, the archive, its own address), and what its error says.
SERVERS = {
    "an HTML page": (
        lambda send, raw, url: send(OK.replace(b"application/gzip", b"text/html") + b"\r\n<p>log in"),
        "html",
    ),
    "half of the file": (lambda send, raw, url: send(OK + b"\r\n" + raw[: len(raw) // 2]), "bytes"),
    "half, with the whole's length": (
        lambda send, raw, url: send(OK + b"Content-Length: %d\r\n\r\n" % len(raw) + raw[: len(raw) // 2]),
        "",
    ),
    "a length that is too short": (
        lambda send, raw, url: send(OK + b"Content-Length: %d\r\n\r\n" % (len(raw) - 9) + raw),
        "bytes",
    ),
    "a length that is no number": (lambda send, raw, url: send(OK + b"Content-Length: -x\r\n\r\n" + raw[:99]), "bytes"),
    "a flipped byte": (lambda send, raw, url: send(OK + b"\r\n" + raw[:99] + bytes([raw[99] ^ 1]) + raw[100:]), "MD5"),
    "bytes without an end": (serve_endless, "bytes"),
    "a chunk that is none": (
        lambda send, raw, url: send(OK + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(raw[:99]) + b"zz\r\nxx"),
        "",
    ),
    "404": (status("404 Not Found"), "Not Found"),
    "500": (status("500 Internal Server Error"), "Internal Server Error"),
    "control characters": (status("500 \x1b[31m\x1b]0;title\x07\x9b2J\x00red"), "red"),
    "a very long error": (status("500 " + "long " * 10_000), ""),
    "no HTTP": (lambda send, raw, url: send(b"\x00\x01\x02\xff" * 100 + b"\r\n\r\n"), ""),
    "no answer at all": (lambda send, raw, url: None, ""),
    "headers without an end": (lambda send, raw, url: send(OK + b"X-Filler: 1\r\n" * 10_000), "headers"),
    "redirects for ever": (lambda send, raw, url: send(redirect(url)), "redirect"),
    "a redirect to file://": (lambda send, raw, url: send(redirect("file:///etc/passwd")), "not allowed"),
    "a redirect to nowhere": (lambda send, raw, url: send(redirect("http://")), ""),
    "a stall before the headers": (lambda send, raw, url: time.sleep(30), "timed out"),
    "a stall in the headers": (lambda send, raw, url: (send(OK), time.sleep(30)), "timed out"),
    "a stall in the body": (lambda send, raw, url: (send(OK + b"\r\n" + raw[:5000]), time.sleep(30)), "timed out"),
    "nobody who listens": (None, "refused"),
}
HOLDING = {  # these send something all the time
    "headers byte by byte": lambda send, raw, url: (send(OK), trickle(send, b"x")),
    "a status byte by byte": lambda send, raw, url: trickle(send, b"x"),
    "100 Continue": lambda send, raw, url: trickle(send, b"HTTP/1.1 100 Continue\r\n\r\n"),
    "100 Continue, as fast as can be": lambda send, raw, url: trickle(send, b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
    "the head of a chunk byte by byte": serve_trickled_chunk,
}


@pytest.fixture
def hosts(official, tmp_path, monkeypatch):
    """Return hosts(serve, ...), which starts a server for each function and makes them the only sources."""
    archive(tmp_path / "served", official[1])
    raw = (tmp_path / "served").read_bytes()
    monkeypatch.setattr(download, "OFFICIAL", {NAME: (md5(raw), len(raw))})
    monkeypatch.setattr(download, "_remote", REMOTE)
    monkeypatch.setattr(download.shutil, "which", lambda name: None)  # no npm
    for name, seconds in {"PATIENCE": 1, "START": 4, "POLL": 0.02}.items():
        monkeypatch.setattr(download, name, seconds)
    for variable in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    listeners = []

    def start(serve, scheme="http"):
        listener = socket.create_server(("127.0.0.1", 0))
        url = f"{scheme}://127.0.0.1:{listener.getsockname()[1]}/{NAME}"
        if serve:
            listeners.append(listener)
            threading.Thread(target=listen, args=(listener, serve, scheme, url), daemon=True).start()
        else:
            listener.close()
        return url

    def listen(listener, serve, scheme, url):
        with contextlib.suppress(OSError):  # the listener is closed at the end
            while True:
                connection = listener.accept()[0]
                threading.Thread(target=answer, args=(connection, serve, scheme, url), daemon=True).start()

    def answer(connection, serve, scheme, url):
        with contextlib.suppress(OSError), connection:  # the client has left
            connection.recv(1 << 16)
            serve(connection.sendall, raw, url)
            connection.shutdown(socket.SHUT_WR)
            connection.settimeout(5)
            while connection.recv(1 << 16):
                pass

    def make(*serves):
        first, *others = (start(*serve) if isinstance(serve, tuple) else start(serve) for serve in serves)
        monkeypatch.setattr(CIFAR10, "url", first)
        monkeypatch.setattr(download, "MIRRORS", others)
        return [first, *others]

    yield make
    for listener in listeners:
        listener.close()


def load_past(hosts, serve, official, folder, capsys):
    """Load from a bad host and a good one; return the line on the bad one."""
    bad, good = hosts(serve, serve_good)
    started = time.monotonic()
    found, source = download.load(folder)
    assert time.monotonic() - started < BOUND
    assert found == official[0] and source == good
    printed = capsys.readouterr().err
    (line,) = [line for line in printed.splitlines() if line.endswith("; trying the next source")]
    assert line.startswith(f"{bad}: ") and len(line) < 500
    assert "Traceback" not in printed and all(c.isprintable() for c in printed if c != "\n")
    return line.removeprefix(f"{bad}: ")


@pytest.mark.attack("a host that sends or does what it should not")
@pytest.mark.parametrize("kind", list(SERVERS))
def test_bad_host(kind, hosts, official, tmp_path, capsys):
    serve, text = SERVERS[kind]
    assert text.lower() in load_past(hosts, serve, official, tmp_path / "data", capsys).lower()


@pytest.mark.attack("a host that speaks no TLS")
@pytest.mark.parametrize("kind", ["no HTTP", "an HTML page", "a stall before the headers"])
def test_bad_tls(kind, hosts, official, tmp_path, capsys):
    load_past(hosts, (SERVERS[kind][0], "https"), official, tmp_path / "data", capsys)


@pytest.mark.attack("a host that holds its client by sending headers or `100 Continue` byte by byte")
def test_host_that_holds_its_client(hosts, official, tmp_path, record_property):
    """All at once, as each takes PATIENCE + START."""
    record_property("tried", len(HOLDING) + 1)
    serves = [*HOLDING.values(), (HOLDING["a status byte by byte"], "https")]
    *held, good = hosts(*serves, serve_good)
    started = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(len(held)) as pool:
        results = [pool.submit(download._from_web, url, download.SLOW, {}) for url in held]
        for result in results:
            with pytest.raises(UserError, match=r"nothing came|timed out|WRONG_VERSION|too slow"):
                result.result()
    assert time.monotonic() - started < BOUND / 2
    assert download._from_web(good, download.SLOW, {}) == official[0]


@pytest.mark.attack("a host that is slow, with and without a faster one")
@pytest.mark.parametrize("other", [serve_good, SERVERS["404"][0]])
def test_slow_host(other, hosts, official, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(download, "SLOW", 1e9)
    monkeypatch.setattr(download, "JUDGED", 0.1)
    monkeypatch.setattr(download, "SLOWEST", 1000)
    slow, fast = hosts(serve_slow, lambda send, raw, url: (time.sleep(0.3), other(send, raw, url)))
    found, source = download.load(tmp_path / "data")
    assert found == official[0]
    assert source == (fast if other is serve_good else f"{slow}, given more time")
    assert f"{slow}: too slow" in capsys.readouterr().err


@pytest.mark.attack("a host that sends a byte per second, and no other")
def test_host_that_takes_years(hosts, tmp_path, monkeypatch, run_in_process):
    monkeypatch.setattr(download, "JUDGED", 0.5)
    hosts(lambda send, raw, url: (send(OK + b"\r\n"), trickle(send, b"\x1f")))
    process = run_in_process(lambda: data.load("full", tmp_path / "data"))
    assert_single_error_line(process, "too slow", "given more time: too slow", "By hand", status=1)


@pytest.mark.attack("no host that works")
def test_no_host(hosts, tmp_path, run_in_process):
    urls = hosts(*(SERVERS[kind][0] for kind in ("nobody who listens", "404", "an HTML page", "no answer at all")))
    process = run_in_process(lambda: data.load("full", tmp_path / "data"))
    assert_single_error_line(process, *urls, "npm is not installed", f"download {urls[0]}", str(tmp_path), status=1)
    assert "MD5 c58f30108f718f92721af3b95e74349a" in process.stderr
    assert [path.name for path in (tmp_path / "data").iterdir()] == [".lock"]


@pytest.mark.attack("a right archive that a host sends with another pickle in it")
def test_only_verified_bytes_are_opened(hosts, official, tmp_path, monkeypatch):
    """What a host sends is not even opened as an archive before its MD5 is right."""
    opened = []
    monkeypatch.setattr(download, "_from_archive", lambda file: opened.append(file) or official[0])
    served = hashlib.sha256(b"another archive").digest() * 100
    hosts(lambda send, raw, url: send(OK + b"\r\n" + served))
    with pytest.raises(UserError, match="instead of"):
        download.load(tmp_path / "data")
    assert not opened
    hosts(serve_good)
    assert download.load(tmp_path / "data")[0] == official[0] and len(opened) == 1


@pytest.mark.attack("a program killed while it downloads from a host that stalls")
def test_orphaned_download(hosts):
    """The process that downloads ends with the one that started it, of which its standard input is a sign."""
    (url,) = hosts(SERVERS["a stall in the body"][0])
    command = [sys.executable, "-I", download.FETCH, url, "1000000", "60"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.read(5000)  # it is at work
        process.stdin.close()
        assert process.wait(20) == 1
