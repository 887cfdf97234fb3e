"""The threads beside the one that asks."""

import ctypes
import os
import threading
import time

import pytest

from plasticity import native
from plasticity.native import NO_WORK, Work, table, together

pytestmark = pytest.mark.skipif(native.share is None, reason=native.MISSING)
TASK = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class Meeting:
    """A task that waits until so many threads do it at once, and notes which they are."""

    def __init__(self, threads, patience=10.0):
        self.barrier, self.seen = threading.Barrier(threads, timeout=patience), []
        self._function = TASK(self._meet)
        self.work = Work((self._function, table([0])))

    def _meet(self, _):
        self.seen.append(threading.get_ident())
        self.barrier.wait()


def ask(meeting, threads):
    native.share(*meeting.work.arguments, threads)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_a_list_is_done_by_so_many_threads_at_once(threads):
    meeting = Meeting(threads)
    for _ in range(3):
        meeting.seen.clear()
        ask(meeting, threads)
        assert len(meeting.seen) == len({*meeting.seen}) == threads
        assert threading.get_ident() in meeting.seen


def test_within_such_work_one_thread_does_all():
    inner = Meeting(1)
    outer = TASK(lambda _: ask(inner, 3) if threading.current_thread() is threading.main_thread() else None)
    work = Work((outer, table([0])))
    native.share(*work.arguments, 2)
    assert inner.seen == [threading.get_ident()]


@pytest.mark.parametrize("wake", [True, False])
def test_a_thread_that_sleeps_is_woken_where_that_is_worth_it(wake):
    together(NO_WORK, NO_WORK)
    first, second = Meeting(1), Meeting(1)
    ask(Meeting(2), 2)
    time.sleep(0.3)  # much longer than it looks for work
    together(first.work, second.work, alone=False, wake=wake)
    assert second.seen == [threading.get_ident()]
    assert (first.seen == second.seen) == (not wake)


def test_a_thread_that_is_awake_takes_part():
    for _ in range(200):  # for the system may keep it from running just then
        ask(Meeting(2), 2)
        first = Meeting(1)
        together(first.work, NO_WORK, alone=False, wake=False)
        if first.seen != [threading.get_ident()]:
            return
    pytest.fail("it never was")


def test_a_fork_has_threads_of_its_own():
    ask(Meeting(3), 3)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            meeting = Meeting(3)
            ask(meeting, 3)
            code = 0 if len({*meeting.seen}) == 3 else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    ask(Meeting(3), 3)
