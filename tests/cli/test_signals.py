"""Signals to ``minictr run`` reach the program; its end and its parent's end are its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from minictr.features.tables import signal_number


@pytest.fixture
def started(minictr_cli, rootfs, requires):
    """``started(script, *options)``: a running ``minictr run``, once the script said "ready"."""
    requires.root()
    processes = []

    def start(script, *options):
        command = [*minictr_cli, "run", "--rootfs", str(rootfs), *options, "--", "bash", "-c", script]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL)
        processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()
        process.stdout.close()


LOOP = "echo ready; while :; do sleep 0.02; done"


@pytest.mark.parametrize("init", ["--init", "--no-init"])
@pytest.mark.parametrize("name", "TERM INT HUP QUIT USR1 USR2 PWR RTMIN+3 RTMIN+4 RTMIN+5".split())
def test_signals_are_passed_on(started, name, init):
    number = signal_number(name)
    process = started(f"trap 'echo got; exit 7' {number}; {LOOP}", init)
    process.send_signal(number)
    assert process.communicate(timeout=20)[0] == "got\n"
    assert process.returncode == 7


def test_a_signal_that_kills_the_program_is_told(started):
    process = started(LOOP)
    process.terminate()
    assert process.wait(20) == 128 + signal.SIGTERM


@pytest.mark.slow
def test_a_program_that_ignores_the_stop_signal_is_killed(started):
    begun = time.monotonic()
    process = started(f"trap '' TERM; {LOOP}", "--timeout", "0.2")
    assert process.wait(30) == 124
    assert time.monotonic() - begun > 9


def test_the_program_dies_with_the_parent_of_the_command(minictr_cli, rootfs, requires):
    requires.root()
    read, write = os.pipe()
    command = [*minictr_cli, "run", "--rootfs", str(rootfs), "--die-with-parent", "--", "bash", "-c", LOOP]
    code = "import subprocess, sys, os; p = subprocess.Popen(sys.argv[1:]); sys.stdin.read(); os._exit(0)"
    parent = subprocess.Popen([sys.executable, "-c", code, *command], stdin=subprocess.PIPE, stdout=write)
    os.close(write)
    with open(read) as answers:
        assert answers.readline() == "ready\n"
        parent.communicate()
        assert answers.read() == ""  # end of file: the last process that held the pipe is gone
