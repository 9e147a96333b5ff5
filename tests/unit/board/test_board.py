"""The board: one writer a row, everybody reads, totals survive the dead."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

import pytest

from cavalcade.board import layout, ledger_words
from cavalcade.board.ledger import private_ledger
from cavalcade.board.ledger_words import Sums
from cavalcade.board.view import Board

SLOTS: Final = 4


@pytest.fixture
def board() -> Iterator[Board]:
    board = Board.create(SLOTS)
    yield board
    board.close()


def test_every_word_has_a_place_of_its_own_within_the_row() -> None:
    sizes = {"WORD_BYTES", "ROW_WORDS", "ROW_BYTES"}
    words = [value for name, value in vars(layout).items() if name.isupper() and isinstance(value, int) and name not in sizes]
    assert sorted(words) == sorted(set(words))
    assert max(words) < layout.ROW_WORDS


def test_every_word_of_a_ledger_has_one_name_and_a_place_of_its_own() -> None:
    words = list(ledger_words.NAMES.values())
    assert sorted(words) == sorted(set(words))
    assert max(words) < ledger_words.LEDGER_WORDS


def test_rows_begin_on_cache_lines_of_their_own() -> None:
    assert layout.ROW_BYTES % 64 == ledger_words.LEDGER_BYTES % 64 == 0


def test_a_new_board_is_empty(board: Board) -> None:
    assert all(board.row(slot).get(layout.PHASE) == layout.Phase.EMPTY for slot in range(SLOTS))
    assert board.totals() == {}


def test_a_row_keeps_whole_64_bit_values_and_no_neighbour_sees_them(board: Board) -> None:
    board.row(1).set(layout.STARTED_NS, 2**64 - 1)
    board.ledger(1).set(ledger_words.BYTES_SENT, 2**64 - 1)
    assert board.row(1).get(layout.STARTED_NS) == board.ledger(1).get(ledger_words.BYTES_SENT) == 2**64 - 1
    for other in (0, 2):
        assert board.row(other).words() == [0] * layout.ROW_WORDS
        assert board.ledger(other).words() == [0] * ledger_words.LEDGER_WORDS


def test_add_goes_up_and_down(board: Board) -> None:
    row = board.row(0)
    row.add(layout.CONNECTIONS, 3)
    row.add(layout.CONNECTIONS, -2)
    assert row.get(layout.CONNECTIONS) == 1


@pytest.mark.parametrize("slot", [-1, SLOTS, SLOTS + 1])
def test_the_base_row_and_what_lies_beyond_cannot_be_had_as_a_slot(board: Board, slot: int) -> None:
    with pytest.raises(IndexError, match="slots 0 to 3"):
        board.row(slot)


def test_fold_keeps_the_counters_of_the_dead_and_empties_the_row(board: Board) -> None:
    for slot in range(SLOTS):
        board.row(slot).set(layout.WORKER_ID, slot + 1)
        board.ledger(slot).add(ledger_words.REQUESTS, 10)
        board.row(slot).add(layout.CONNECTIONS, 1)
    board.row(2).set(layout.PHASE, layout.Phase.STOPPED)
    board.fold(2)
    board.fold(2)  # a second time adds nothing
    assert board.totals()["requests"] == 40
    assert board.ledger(2).get(ledger_words.REQUESTS) == 0
    assert board.row(2).get(layout.CONNECTIONS) == 0
    assert board.row(2).get(layout.PHASE) == layout.Phase.EMPTY


def test_another_process_sees_what_is_written_and_its_writing_is_seen(board: Board) -> None:
    board.row(0).set(layout.PID, 7)
    pid = os.fork()
    if pid == 0:  # the child opens the board anew, from the descriptor, as a nursery does
        code = 1
        try:
            other = Board.from_fd(os.dup(board.fd), SLOTS)
            other.row(1).set(layout.GENERATION, other.row(0).get(layout.PID) + 1)
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert board.row(1).get(layout.GENERATION) == 8


def test_the_descriptor_is_not_inherited_by_accident(board: Board) -> None:
    assert not os.get_inheritable(board.fd)


def test_what_another_server_has_counted_is_counted_once_and_nothing_goes_down(board: Board) -> None:
    board.row(0).set(layout.WORKER_ID, 1)
    board.ledger(0).set(ledger_words.REQUESTS, 5)
    board.inherit({"requests": 10, "counter_of_another_version": 3})
    assert board.totals()["requests"] == 15
    board.inherit({"requests": 12, "shed": 1})
    assert (board.totals()["requests"], board.totals()["shed"]) == (17, 1)
    board.inherit({"requests": 3})
    board.fold(0)
    assert board.totals()["requests"] == 17


def test_a_request_is_counted_by_method_and_status_and_both_its_times_go_to_their_buckets() -> None:
    ledger = private_ledger()
    ledger.answered("GET", 204, 10, 0.003, 0.0004)
    ledger.answered("PATCH", 503, 5, 20.0, 20.0)
    ledger.answered("BREW", 999, 0, 0.0005, 0.0005)
    ledger.refused(431)
    sums = Sums(ledger.words())
    assert {(method, name): count for method, name, count in sums.responses() if count} == {
        ("GET", "2xx"): 1,
        ("PATCH", "5xx"): 1,
        ("other", "other"): 1,
        ("other", "4xx"): 1,
    }
    assert (sums.get(ledger_words.REQUESTS), sums.get(ledger_words.BYTES_SENT)) == (4, 15)
    assert sums.by_class() == {"other": 1, "1xx": 0, "2xx": 1, "3xx": 0, "4xx": 1, "5xx": 1}
    assert list(sums.buckets(ledger_words.LATENCY)) == [1, 0, 0, 1, *[0] * 10, 1]
    assert list(sums.buckets(ledger_words.FIRST_BYTE)) == [2, *[0] * 13, 1]
    assert sums.seconds(ledger_words.LATENCY) == pytest.approx(20.0035)
    assert sums.seconds(ledger_words.FIRST_BYTE) == pytest.approx(20.0009)
