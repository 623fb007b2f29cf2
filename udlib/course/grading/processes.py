"""A program with all processes that it starts: how much they use, and their end at a limit."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

MARK = "UDLIB_GRADED_REPORT"  # the variable by which a process is recognised when its parents are gone
POLL = 0.1  # seconds between two looks
FOLDER_POLL = 1.0  # seconds between two looks at what lies in the folder
PROC = Path("/proc")


@dataclass(frozen=True)
class Limits:
    """What a report may use.

    Attributes:
        minutes: Of the clock, and of computing time of all processes together.
        memory_gb: Of memory of all processes together.
        file_mb: Size of one file.
        folder_mb: Size of all files that it adds.
        processes: Their number at one time.
    """

    minutes: float = 10.0
    memory_gb: float = 4.0
    file_mb: int = 256
    folder_mb: int = 1024
    processes: int = 48


class Process(NamedTuple):
    """One process of this machine, as the system lists it."""

    pid: int
    parent: int
    group: int
    session: int
    memory: int  # bytes that are resident
    seconds: float  # of computing, with its children that have ended


class Outcome(NamedTuple):
    """How a program ended: the limit that it broke, in words, or "" with its exit code."""

    broken: str
    code: int
    seconds: float


def processes() -> dict[int, Process]:
    """List the living processes of this machine by number."""
    found = _from_proc() if (PROC / "self" / "stat").exists() else _from_ps()
    return {process.pid: process for process in found}


def _from_proc() -> Iterator[Process]:
    """The processes that Linux lists in /proc, without those that have ended and wait for their parent."""
    ticks, page = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
    for name in os.listdir(PROC):
        if not name.isdigit():
            continue
        try:
            text = (PROC / name / "stat").read_text(errors="replace")
        except OSError:  # it ended just now
            continue
        words = text.rpartition(")")[2].split()  # its name, in brackets, may contain spaces
        if words[0] not in "ZX":
            parent, group, session = map(int, words[1:4])
            yield Process(int(name), parent, group, session, int(words[21]) * page, sum(map(int, words[11:15])) / ticks)


def _from_ps() -> Iterator[Process]:
    """The processes that `ps` lists, for systems without /proc; it knows no sessions, so a group stands for one."""
    words = ["ps", "-A", "-o", "pid=,ppid=,pgid=,rss=,time=,stat="]
    for line in subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines():
        pid, parent, group, kilobytes, clock, state = line.split()[:6]
        if not state.startswith("Z"):
            yield Process(int(pid), int(parent), int(group), int(group), int(kilobytes) * 1024, seconds_of(clock))


def seconds_of(clock: str) -> float:
    """The computing time that `ps` prints, in seconds.

    >>> seconds_of("1:02.50"), seconds_of("2-00:00:01")
    (62.5, 172801.0)
    """
    days, _, rest = clock.rpartition("-")
    total = 0.0
    for part in rest.split(":"):
        total = 60 * total + float(part)
    return total + 86400 * int(days or 0)


@dataclass
class Family:
    """A program, and all processes that descend from it.

    Args:
        root: Its number; it leads a session of its own.
        mark: The value of the variable `MARK` that its processes inherit.
    """

    root: int
    mark: str
    sessions: set[int] = field(default_factory=set)
    pids: set[int] = field(default_factory=set)

    def members(self, thorough: bool = False) -> list[Process]:
        """List its living processes: descendants, members of their sessions, and, if `thorough`, all that carry the mark."""
        table, own = processes(), os.getpid()
        self.sessions.add(self.root)
        family = {pid for pid, process in table.items() if self._belongs(process)}
        if thorough:
            family |= {pid for pid in table if self._marked(pid)}
        children: dict[int, list[int]] = {}
        for process in table.values():
            children.setdefault(process.parent, []).append(process.pid)
        waiting = list(family)
        while waiting:
            for child in children.get(waiting.pop(), ()):
                if child not in family:
                    family.add(child)
                    waiting.append(child)
        family.discard(own)
        self.pids = family
        self.sessions |= {table[pid].session for pid in family} - {os.getsid(0), os.getpgrp()}
        return [table[pid] for pid in sorted(family)]

    def _belongs(self, process: Process) -> bool:
        return process.pid == self.root or process.session in self.sessions

    def _marked(self, pid: int) -> bool:
        try:
            return f"{MARK}={self.mark}".encode() in (PROC / str(pid) / "environ").read_bytes().split(b"\0")
        except OSError:  # of another user, ended just now, or a system without /proc
            return False

    def end(self, patience: float = 20.0) -> None:
        """Kill all of them, whole groups at a time, until none is left.

        Raises:
            RuntimeError: If some live on after `patience` seconds.
        """
        start = time.monotonic()
        while living := self.members(thorough=True):
            for group in {process.group for process in living} - {os.getpgrp()}:
                _kill(os.killpg, group)  # a group dies at once, so none of its members can start another in between
            for process in living:
                _kill(os.kill, process.pid)
            if time.monotonic() - start > patience:
                raise RuntimeError(f"{len(living)} processes of the report cannot be ended: restart this machine")
            time.sleep(0.02)


def _kill(function, number: int) -> None:
    try:
        function(number, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass  # it has ended already


def run_watched(
    command: Sequence[str], environment: Mapping[str, str], folder: Path, limits: Limits, log: Path
) -> Outcome:
    """Run a program until it ends or breaks a limit; then none of its processes lives on.

    Args:
        command: The program and its words.
        environment: Its environment, in which `MARK` has a value that no other program has.
        folder: The folder that it writes into, which the limit of size is about.
        limits: What it may use.
        log: The file that gets its messages.

    Raises:
        RuntimeError: If a process cannot be ended.
    """
    start = time.monotonic()
    with log.open("wb") as messages:
        program = subprocess.Popen(
            command,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=messages,
            stderr=messages,
            start_new_session=True,
        )
    family = Family(program.pid, environment[MARK])
    broken = ""
    try:
        watch = _Watch(limits, folder, start)
        while program.poll() is None and not broken:
            broken = watch.broken(family.members())
            time.sleep(0 if broken else POLL)
    finally:
        family.end()
        program.wait()
    return Outcome(broken, program.returncode, time.monotonic() - start)


class _Watch:
    """Compares what a family uses with its limits."""

    def __init__(self, limits: Limits, folder: Path, start: float):
        self.limits, self.folder, self.start = limits, folder, start
        self.size_before, self.looked = size_of(folder), start

    def broken(self, living: Sequence[Process]) -> str:
        """Say which limit these processes break, in words; "" for none."""
        limits, now = self.limits, time.monotonic()
        if now - self.start > 60 * limits.minutes:
            return f"it ran longer than {limits.minutes:g} minutes"
        if sum(process.seconds for process in living) > 60 * limits.minutes:
            return f"it computed longer than {limits.minutes:g} minutes"
        if sum(process.memory for process in living) > limits.memory_gb * 1e9:
            return f"it used more memory than {limits.memory_gb:g} GB"
        if len(living) > limits.processes:
            return f"it ran more than {limits.processes} processes at one time"
        if now - self.looked > FOLDER_POLL:
            self.looked = now
            if size_of(self.folder) - self.size_before > limits.folder_mb * 1e6:
                return f"it wrote more than {limits.folder_mb} MB"
        return ""


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder, without following links."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(place, name)).st_size
            except OSError:  # it was removed just now
                continue
    return total
