"""The events of windows, kept and read back: nothing is rounded, thinned or lost in silence."""

import gzip
import json
import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper.engines import Event, Request
from sweeper.trial.events import CHUNK, LETTERS, EventLog, files
from sweeper.verify import stream

MOMENTS = st.floats(0.0, 1e9, allow_nan=False)
NAMED = st.builds(
    Event,
    st.sampled_from(["admitted", "first_token", "finished"]),
    MOMENTS,
    st.integers(0, 10**12),
)
FAILED = st.builds(
    Event, st.just("failed"), MOMENTS, st.integers(0, 99), detail=st.text(max_size=9)
)
STEPS = st.builds(
    Event, st.just("tokens"), MOMENTS, tokens=st.integers(0, 9999), running=st.integers(0, 512)
)

CHUNKS = st.builds(
    Event,
    st.just("tokens"),
    MOMENTS,
    st.integers(0, 99),
    tokens=st.integers(0, 9),
    running=st.integers(0, 1),
)


def packed(events, requests=(), index: int = 0) -> bytes:
    log = EventLog()
    for event in events:
        log.add(event)
    return log.line(index, {each.index: each for each in requests})


def plain(event: Event) -> tuple[str, float, int, int, int]:
    request = -1 if event.request is None else event.request
    chunk = event.kind == "tokens" and event.request is not None
    return CHUNK if chunk else LETTERS[event.kind], event.t_s, request, event.tokens, event.running


@given(
    st.lists(NAMED | FAILED | STEPS | CHUNKS, max_size=40),
    st.lists(
        st.tuples(st.integers(0, 10**9), st.integers(1, 9), st.integers(1, 9)),
        unique_by=lambda each: each[0],
        max_size=9,
    ),
)
def test_events_come_back_to_the_last_bit(events, lengths):
    requests = [Request(number, range(inputs), outputs) for number, inputs, outputs in lengths]
    [found] = stream.read(gzip.decompress(packed(events, requests, index=3))).items()
    assert found[0] == 3
    assert list(found[1].events) == [plain(event) for event in events]
    assert found[1].lengths == {number: (i, o) for number, i, o in lengths}


def test_a_long_window_of_a_large_batch_is_small():
    chance, t_s = random.Random(0), 123456.789
    events, requests, left = [], [], {}
    while t_s < 123456.789 + 30:
        began = []
        while len(left) + len(began) < 512:
            requests.append(Request(len(requests), range(512), 64))
            began.append(requests[-1].index)
            t_s += chance.random() * 2e-5
            events.append(Event("admitted", t_s, began[-1]))
        t_s += chance.gauss(0.02, 0.001)
        events.append(Event("tokens", t_s, tokens=len(left), running=len(left)))
        events += [Event("first_token", t_s, number) for number in began]
        left = {number: tokens - 1 for number, tokens in left.items()}
        left |= dict.fromkeys(began, 63)
        events += [Event("finished", t_s, number) for number, n in left.items() if n == 0]
        left = {number: n for number, n in left.items() if n}
    assert len(events) > 25_000
    line = packed(events, requests)
    assert len(line) < 80_000
    assert list(stream.read(gzip.decompress(line))[0].events) == [plain(each) for each in events]


@given(st.lists(st.binary(min_size=1, max_size=30), max_size=20), st.integers(1, 40))
def test_lines_are_put_into_files_whole_and_those_too_long_are_named(lines, limit):
    kept, lost = files(lines, limit)
    assert all(len(each) <= limit for each in kept)
    assert b"".join(kept) == b"".join(line for line in lines if len(line) <= limit)
    assert lost == [place for place, line in enumerate(lines) if len(line) > limit]
    assert all(len(one) + len(other) > limit for one, other in pairwise(kept))


def test_several_windows_in_one_file_are_read_as_lines():
    [both] = files([packed([Event("admitted", 1.0, 1)], index=number) for number in (0, 1)])[0]
    assert sorted(stream.read(gzip.decompress(both))) == [0, 1]


@pytest.mark.parametrize("column", ["t", "request", "tokens", "kind"])
def test_columns_of_different_lengths_are_refused(column):
    events = [Event("admitted", 1.0, 1), Event("tokens", 2.0, tokens=1, running=1)]
    columns = json.loads(gzip.decompress(packed(events)))
    columns[column] = columns[column][:-1]
    with pytest.raises((ValueError, StopIteration)):
        stream.read(json.dumps(columns).encode())


def test_work_is_by_hand():
    asked = {1: (10, 3), 2: (20, 3)}
    seen = stream.Stream(
        events=[
            ("a", 10.0, 1, 0, 0),
            ("a", 10.0, 2, 0, 0),
            ("f", 11.0, 1, 0, 0),
            ("t", 12.0, -1, 1, 1),
            ("f", 12.5, 2, 0, 0),
            ("t", 13.0, -1, 3, 2),
            ("d", 13.0, 1, 0, 0),
            ("t", 15.0, -1, 1, 1),
            ("d", 15.0, 2, 0, 0),
        ],
        lengths=asked,
    )
    whole = stream.work(seen, float("-inf"), 15.0)
    assert (whole.requests, whole.failed) == (2, 0)
    assert (whole.input_tokens, whole.output_tokens) == (30, 7)
    assert (whole.asked_tokens, whole.generated_tokens) == (6, 7)
    assert whole.samples == {
        "ttft_s": [1.0, 2.5],
        "tpot_s": [1.0, 1.25],
        "latency_s": [3.0, 5.0],
        "itl_s": [(0.0, 1), (1.0, 3), (2.0, 1)],
    }
    part = stream.work(seen, 11.0, 13.0)
    assert (part.requests, part.input_tokens, part.output_tokens) == (1, 20, 5)
    assert part.samples["itl_s"] == [(0.0, 1), (1.0, 3)]


def test_chunks_are_by_hand():
    """As `test_tokens_of_one_request_wait_for_its_own_last_ones` has them."""
    seen = stream.Stream(
        events=[
            ("a", 10.0, 1, 0, 0),
            ("a", 10.0, 2, 0, 0),
            ("f", 11.0, 1, 0, 0),
            ("f", 11.5, 2, 0, 0),
            ("c", 11.5, 2, 1, 0),
            ("c", 12.0, 1, 1, 1),
            ("c", 12.5, 2, 3, 1),
            ("d", 12.5, 2, 0, 0),
            ("c", 14.0, 1, 1, 1),
            ("d", 14.0, 1, 0, 0),
        ],
        lengths={1: (10, 3), 2: (20, 5)},
    )
    found = stream.work(seen, float("-inf"), 14.0)
    assert (found.requests, found.output_tokens, found.generated_tokens) == (2, 8, 8)
    assert found.samples["itl_s"] == [(0.0, 3), (1.0, 2), (2.0, 1)]
    assert stream.work(seen, 12.0, 12.5).samples["itl_s"] == [(0.0, 2), (1.0, 1)]
