"""The same work on many things at once."""

import threading

import numpy as np
import pytest
import torch

from plasticity import parallel
from plasticity.parallel import side_by_side


@pytest.fixture(params=[1, 2])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_results_come_in_order_and_libraries_have_one_thread_meanwhile(threads):
    seen = set()

    def act(number, other):
        seen.add((torch.get_num_threads(), threading.current_thread() is threading.main_thread()))
        return number + other

    assert side_by_side(act, range(20), range(100, 120)) == [*range(100, 140, 2)]
    assert seen == {(1, threads == 1)}
    assert side_by_side(act, [], []) == []
    assert torch.get_num_threads() == threads


def test_numbers_of_threads_are_what_they_were_even_after_an_error(threads, monkeypatch):
    told = []

    class Library:
        def set_threads(self, number):
            told.append(number)
            return 7

    monkeypatch.setattr(parallel, "_numpys", Library())
    with pytest.raises(np.linalg.LinAlgError):
        side_by_side(np.linalg.inv, [np.zeros((2, 2))])
    assert told == [1, 7]
    assert torch.get_num_threads() == threads
