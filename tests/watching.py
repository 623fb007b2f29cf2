"""Pytest plugins that note what tests execute, and which one fails first."""

import json
import os
import sys
import threading
import time

import pytest


class Trace:
    """A pytest plugin that notes which lines below a folder each passing test executes, its fixtures included."""

    def __init__(self, root):
        self.folder, self.now, self.tests, self.fixtures, self.failed = f"{root}{os.sep}", set(), {}, {}, set()

    def call(self, frame, event, arg):
        return self.line if frame.f_code.co_filename.startswith(self.folder + "udlib") else None

    def line(self, frame, event, arg):
        self.now.add((frame.f_code.co_filename, frame.f_lineno))
        return self.line

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item):
        self.now, start = set(), time.monotonic()
        threading.settrace(self.call)
        sys.settrace(self.call)
        try:
            return (yield)
        finally:
            sys.settrace(None)
            threading.settrace(None)
            shared = [self.fixtures.get(name, set()) for name in getattr(item, "fixturenames", ())]
            self.tests[item.nodeid] = time.monotonic() - start, self.now.union(*shared)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef):
        before, self.now = self.now, set()
        try:
            return (yield)
        finally:
            self.fixtures.setdefault(fixturedef.argname, set()).update(self.now)
            self.now |= before

    def pytest_runtest_logreport(self, report):
        if report.failed:
            self.failed.add(report.nodeid)

    def facts(self):
        tests = {}
        for name, (seconds, places) in self.tests.items():
            by_file = {}
            for file, line in places:
                by_file.setdefault(file.removeprefix(self.folder), []).append(line)
            tests[name] = {"seconds": seconds, "lines": by_file}
        return json.dumps({name: facts for name, facts in tests.items() if name not in self.failed})


class First:
    """A pytest plugin that keeps the name of the first test that fails."""

    name = ""

    def pytest_runtest_logreport(self, report):
        if report.failed:
            self.name = self.name or report.nodeid


def run_all(items, first=None):
    """Runs tests, up to the first that fails if that is watched."""
    for item, following in zip(items, [*items[1:], None]):
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if first and first.name:
            return
