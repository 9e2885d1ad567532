"""A base image made of the Debian packages that this machine has: what a bootstrap of Debian would unpack, unfetched.

Holds Python 3 with venv, a shell and the C library, and none of what the tests installed.
"""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

PACKAGES = (
    "base-files",
    "bash",
    "coreutils",
    "dash",
    "libc-bin",
    "libstdc++6",
    "python3-venv",
    "tzdata",
    "ca-certificates",
)
FOLDERS = (
    "dev",
    "etc",
    "home",
    "proc",
    "root",
    "run",
    "sys",
    "tmp",
    "usr/bin",
    "usr/lib",
    "usr/lib64",
    "usr/sbin",
    "var/tmp",
)
MERGED = ("bin", "lib", "lib64", "sbin")
UNUSED = ("/usr/share/doc/", "/usr/share/man/", "/usr/share/locale/", "/usr/share/info/", "/usr/share/perl")
ACCOUNTS = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
}


def why_not() -> str | None:
    """Why no base can be made here, or None."""
    if shutil.which("dpkg-query") is None:
        return "no Debian machine: a base image is made of its packages"
    missing = sorted(set(PACKAGES) - set(_dependencies()))
    return f"not installed here: {', '.join(missing)} (Debian packages of the base image)" if missing else None


def python_version() -> str:
    """Of the base's Python, as in 3.11."""
    done = subprocess.run(["/usr/bin/python3", "--version"], capture_output=True, text=True, check=True)
    return ".".join(done.stdout.split()[1].split(".")[:2])


def archive() -> bytes:
    """The base as a tar file, for `docker import`."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for folder in FOLDERS:
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if folder.endswith("tmp") else 0o755
            tar.addfile(entry)
        for link in MERGED:
            entry = tarfile.TarInfo(link)
            entry.type, entry.linkname = tarfile.SYMTYPE, f"usr/{link}"
            tar.addfile(entry)
        for name, text in ACCOUNTS.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
        for path in sorted(set(_files())):
            tar.add(path, arcname=path.as_posix().lstrip("/"), recursive=False)
    return buffer.getvalue()


def _files() -> Iterator[Path]:
    """Files of the packages, and what is made from them when they are installed."""
    names = sorted(_closure())
    listed = subprocess.run(["dpkg-query", "--listfiles", *names], capture_output=True, text=True, check=True).stdout
    for line in listed.splitlines():
        if not line.startswith("/") or line.startswith(UNUSED):
            continue
        path = _merged(line)
        if path.is_symlink() or path.is_file():
            yield path
    yield Path("/etc/ld.so.cache")


def _merged(line: str) -> Path:
    """A path as it is on a system whose /bin and /lib are links into /usr."""
    return Path(f"/usr{line}" if line.split("/")[1] in MERGED else line)


def _closure() -> set[str]:
    known = _dependencies()
    found: set[str] = set()
    waiting = [name for name in PACKAGES if name in known]
    while waiting:
        name = waiting.pop()
        if name in found or name not in known:
            continue
        found.add(name)
        waiting += known[name]
    # What only maintainer scripts need.
    return found - {"debconf", "perl-base", "adduser", "openssl", "media-types", "mime-support", "mailcap"}


def _dependencies() -> dict[str, list[str]]:
    """By installed package: the packages that it depends on, each alternative."""
    query = "${Package}\t${Pre-Depends}, ${Depends}\n"
    listed = subprocess.run(
        ["dpkg-query", "--show", f"--showformat={query}"], capture_output=True, text=True, check=True
    )
    rows = (line.partition("\t") for line in listed.stdout.splitlines())
    return {name: re.findall(r"(?:^|[,|])\s*([a-z0-9][a-z0-9+.-]*)", needs) for name, _, needs in rows}
