"""Overlapping steps: the order, errors and ends of a plain loop."""

import threading

import pytest

from siamcal.inference.ahead import ahead


def threads():
    return [t for t in threading.enumerate() if t.name == "siamcal-ahead"]


def test_the_items_come_in_order_from_another_thread():
    made_in = set()

    def items():
        for number in range(200):
            made_in.add(threading.current_thread().name)
            yield number

    assert list(ahead(map(str, ahead(items())))) == [str(n) for n in range(200)]
    assert made_in == {"siamcal-ahead"}
    assert list(ahead([])) == []
    assert not threads()


def test_it_works_ahead_and_not_farther_than_it_may():
    made, enough = [], threading.Event()

    def items():
        for number in range(100):
            made.append(number)
            if len(made) == 4:
                enough.set()
            yield number

    stream = ahead(items(), depth=3)
    next(stream)
    assert enough.wait(10)  # before anything but the first was asked for
    assert len(made) <= 5
    stream.close()
    assert len(made) <= 6
    assert not threads()


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
def test_an_error_comes_after_the_items_before_it(kind):
    def items():
        yield 1
        yield 2
        raise kind("broken")

    seen = []
    with pytest.raises(kind, match="broken"):
        seen.extend(ahead(map(int, ahead(items()))))
    assert seen == [1, 2]
    assert not threads()


def test_an_error_of_the_caller_ends_the_thread():
    def consume():
        for item in ahead(iter(int, 1)):  # endless
            raise ValueError(f"at {item}")

    with pytest.raises(ValueError, match="at 0"):
        consume()
    assert not threads()
