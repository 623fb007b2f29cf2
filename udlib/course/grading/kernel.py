"""The program that runs the code of a report: `python -m udlib.course.grading.kernel -f FILE`, an IPython kernel with limits.

Before it runs any code of the report, it limits itself: the size of a file, computing time, and memory. On Linux it also
gives up the right to write outside the folders of the report, to open network connections, and to send signals to other
programs (Landlock). All of its children inherit these limits.
"""

from __future__ import annotations

import ctypes
import json
import os
import runpy
import struct
import sys

LIMITS = "UDLIB_GRADE_LIMITS"  # JSON: seconds, memory and file in bytes, writable folders
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = (
    444,
    445,
    446,
)  # numbers of Landlock's system calls, the same on all processors
VERSION_FLAG, PATH_BENEATH, NET_PORT = 1, 1, 2
WRITE_FILE, TRUNCATE = 1 << 1, 1 << 14
# Removing and making files and folders (bits 4 to 12), and moving them (13).
CHANGES = WRITE_FILE | sum(1 << bit for bit in range(4, 14)) | TRUNCATE
BIND, CONNECT = 1, 2
SIGNALS = 1 << 1
NO_NEW_PRIVILEGES = 38


def limit_resources(seconds: int, memory: int, file: int) -> None:
    """Limit this process and its children: computing time, memory of its own, and the size of a file (in bytes)."""
    import resource

    for name, value in (
        ("RLIMIT_CPU", seconds),
        ("RLIMIT_DATA", memory),
        ("RLIMIT_FSIZE", file),
        ("RLIMIT_CORE", 0),
    ):
        kind = getattr(resource, name)
        most = resource.getrlimit(kind)[1]
        value = value if most == resource.RLIM_INFINITY else min(value, most)
        resource.setrlimit(kind, (value, value))


def landlock_version() -> int:
    """The version of Landlock that this system has; 0 without it."""
    if not sys.platform.startswith("linux"):
        return 0
    return max(ctypes.CDLL(None, use_errno=True).syscall(CREATE_RULESET, None, 0, VERSION_FLAG), 0)


def confine(writable: list[str], ports: list[int]) -> bool:
    """Give up writing outside some folders, connections, and signals to others, as far as this system can.

    Args:
        writable: The folders that stay writable.
        ports: The ports of this machine on which this process may wait for its own runner.

    Returns:
        Whether writing is confined.
    """
    version = landlock_version()
    if version < 3:  # earlier versions cannot forbid to cut a file short, or to move one
        return False
    system = ctypes.CDLL(None, use_errno=True)
    nets = BIND | CONNECT if version >= 4 else 0
    fields = struct.pack("QQQ", CHANGES, nets, SIGNALS if version >= 6 else 0)
    fields = fields[: 24 if version >= 6 else 16 if version >= 4 else 8]
    rules = system.syscall(CREATE_RULESET, fields, len(fields), 0)
    for folder, rights in [*((folder, CHANGES) for folder in writable), ("/dev/null", WRITE_FILE | TRUNCATE)]:
        place = os.open(folder, os.O_PATH | os.O_CLOEXEC)
        _require(system.syscall(ADD_RULE, rules, PATH_BENEATH, struct.pack("=Qi", rights, place), 0))
        os.close(place)
    for port in ports if nets else ():
        _require(system.syscall(ADD_RULE, rules, NET_PORT, struct.pack("QQ", BIND, port), 0))
    _require(system.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0))
    _require(system.syscall(RESTRICT_SELF, rules, 0))
    os.close(rules)
    return True


def _require(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), "this system refuses to confine the report")


def main() -> None:
    """Limit this process, and become a kernel."""
    limits = json.loads(os.environ.pop(LIMITS))
    with open(sys.argv[sys.argv.index("-f") + 1], encoding="utf-8") as file:
        connection = json.load(file)
    limit_resources(limits["seconds"], limits["memory"], limits["file"])
    confine(limits["writable"], [value for name, value in connection.items() if name.endswith("_port")])
    # Only now may modules that lie beside the report be imported, as in Jupyter.
    sys.argv.append("--IPKernelApp.exec_lines=__import__('sys').path.insert(0, '')")
    runpy.run_module("ipykernel_launcher", run_name="__main__")


if __name__ == "__main__":
    main()
