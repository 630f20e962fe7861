"""Images decoded ahead: in order, within bounds of memory, and no further once nobody asks."""

import threading
import time

import pytest
import torch

from polyteach.loading import stream
from polyteach.loading.stream import Decoded, Stream


def image(width, height=10):
    return torch.zeros(3, height, width, dtype=torch.uint8)


def widths(batches):
    return [[item for item, _ in batch] for batch in batches]


@pytest.mark.parametrize("threads", [1, 4])
def test_everything_comes_in_order_however_long_each_takes(threads):
    def load(i):
        time.sleep(0.01 * (7 * i % 5))
        return Decoded(image(i + 1), target=i)

    found = [pair for batch in Stream(range(20), load, batch_size=3, threads=threads) for pair in batch]
    assert [item for item, _ in found] == list(range(20))
    assert [decoded.target for _, decoded in found] == list(range(20))
    assert [decoded.image.shape[2] for _, decoded in found] == list(range(1, 21))


@pytest.mark.parametrize("known", [True, False])
def test_batches_of_large_images_are_smaller(monkeypatch, known):
    monkeypatch.setattr(stream, "BATCH_PIXELS", 100)
    sizes = (1, 1, 1, 8, 2, 3, 200, 1)
    pixels = (lambda w: 10 * w) if known else None
    batches = Stream(sizes, lambda w: Decoded(image(w)), batch_size=3, threads=2, pixels=pixels)
    assert widths(batches) == [[1, 1, 1], [8, 2], [3], [200], [1]]


@pytest.mark.parametrize("known", [True, False])
def test_no_more_is_decoded_ahead_than_there_is_room_for(monkeypatch, known):
    """One batch, and what the threads have in hand where sizes are not known before."""
    monkeypatch.setattr(stream, "BATCH_PIXELS", 100)
    loaded = []

    def load(i):
        loaded.append(i)
        return Decoded(image(4))

    batches = iter(Stream(range(50), load, batch_size=8, threads=2, pixels=(lambda i: 40) if known else None))
    for n in range(5):
        assert len(next(batches)) == 2
        time.sleep(0.1)
        ahead = len(loaded) - 2 * (n + 1)
        assert (ahead == 2) if known else (2 <= ahead <= 5)


def test_a_reason_is_a_value_and_an_error_is_raised_in_its_turn():
    def load(i):
        if i == 5:
            raise ZeroDivisionError
        return Decoded("too dark" if i == 2 else image(3))

    batches = iter(Stream(range(9), load, batch_size=2, threads=3))
    assert [
        [d.image == "too dark" if isinstance(d.image, str) else False for _, d in next(batches)] for _ in range(2)
    ] == [
        [False, False],
        [True, False],
    ]
    with pytest.raises(ZeroDivisionError):
        next(batches)


def test_nothing_is_decoded_once_nobody_asks():
    """As after Ctrl-C: what has not begun never does, and no thread stays."""
    before, loaded = threading.active_count(), []

    def load(i):
        loaded.append(i)
        time.sleep(0.01)
        return Decoded(image(3))

    batches = iter(Stream(range(1000), load, batch_size=4, threads=2))
    next(batches)
    batches.close()
    time.sleep(0.2)
    seen = len(loaded)
    assert seen <= 4 + 4 + 2
    time.sleep(0.1)
    assert len(loaded) == seen
    assert threading.active_count() <= before


def test_of_nothing_comes_nothing():
    assert list(Stream((), lambda i: Decoded("never"), batch_size=4, threads=1)) == []
