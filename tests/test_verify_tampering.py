"""Ways of tampering with a study's folder: each makes `verify` fail, and name what is wrong.

Where a window is changed it is changed in its own line and in its record, as who tampers would.
"""

import gzip
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.tampered import Opened, measured
from tests.verified import assert_verified, verified

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return measured(tmp_path_factory.mktemp("honest"))


Tampering = Callable[[Opened], None]
WAYS: dict[str, tuple[Tampering, str]] = {}


def way(said: str) -> Callable[[Tampering], Tampering]:
    """A way of tampering, and what verify has to say of it; `ID` is the id of its record."""

    def named(tamper: Tampering) -> Tampering:
        WAYS[tamper.__name__] = (tamper, said)
        return tamper

    return named


@way(r"ID .*window 0: energy_j is .*, recomputed")
def less_energy(study: Opened) -> None:
    for window in study.windows(study.good):
        window["energy_j"] *= 0.999


@way(r"ID .*window 0: energy_j is .*, recomputed")
def a_reading(study: Opened) -> None:
    for window in study.windows(study.good):
        window["readings"][1]["energy_j"]["H100/0"] -= 1.0


@way(r"ID .*window 0: ended_s is .*, found")
def a_reading_earlier(study: Opened) -> None:
    for window in study.windows(study.good):
        window["readings"][1]["t_s"] -= 0.5


@way(r"ID .*window 0: latency_s, sample 3: .* kept, .* from the events")
def a_latency_sample(study: Opened) -> None:
    for window in study.windows(study.good):
        window["samples"]["latency_s"][3] -= 1e-6


@way(r"ID .*window 0: samples is \['latency_s', .*\], found \['itl_s'")
def the_gaps_left_out(study: Opened) -> None:
    for window in study.windows(study.good):
        del window["samples"]["itl_s"]


@way(r"ID .*window 0: output_tokens is \d+, found \d+")
def a_token_more(study: Opened) -> None:
    for window in study.windows(study.good):
        window["output_tokens"] += 1


@way(r"ID .*window 0: requests_failed is 1, found 0")
def a_request_that_failed(study: Opened) -> None:
    for window in study.windows(study.good):
        window["requests_failed"] = 1


@way(r"ID launch 0 full: latency_p99_s is .*, recomputed")
def a_metric_of_a_record(study: Opened) -> None:
    study.good["metrics"]["latency_p99_s"] *= 0.99


@way(r"ID .*window 1: power_mean_w is .*, recomputed")
def a_metric_of_a_window(study: Opened) -> None:
    for window in study.windows(study.good, 1):
        window["metrics"]["power_mean_w"] += 0.01


@way(r"ID .*window 0: ttft_p98_s is 0\.1, but follows from nothing")
def a_metric_nobody_knows(study: Opened) -> None:
    for window in study.windows(study.good):
        window["metrics"]["ttft_p98_s"] = 0.1


@way(r"ID launch 0 full: context_idle_w is .*, recomputed")
def an_idle_power(study: Opened) -> None:
    study.good["metrics"]["context_idle_w"] -= 1


@way(r"launch 0 full: energy_drift_ratio is .*, recomputed")
def the_drift_of_a_launch(study: Opened) -> None:
    for record in study.of("record"):
        if "tpot_drift_ratio" in record["metrics"]:
            record["metrics"]["energy_drift_ratio"] = 1.001


@way(r"launch \d full: tpot_drift_ratio is .*, recomputed")
def the_controls_last_window(study: Opened) -> None:
    study.lines = [line for line in study.lines if not line.get("control")]


@way(r"ID launch 0 full: undersampled is .*, found")
def a_tail_of_few_samples_hidden(study: Opened) -> None:
    study.bad["undersampled"] = study.bad["undersampled"][1:]


@way(r"ID launch 0 full: status is 'ok', found 'energy_invalid'")
def invalid_energy_called_ok(study: Opened) -> None:
    study.bad |= {"status": "ok", "reason": None}


@way(r"ID .*window 0: there is no energy, and no reason why")
def a_reason_taken_out(study: Opened) -> None:
    for window in study.windows(study.bad):
        window["reasons"] = []


@way(r"ID .*window 0: reasons is \['thermal_slowdown'\], found \['window_too_short'\]")
def another_reason_given(study: Opened) -> None:
    for window in study.windows(study.bad):
        window["reasons"] = ["thermal_slowdown: GPU"]


@way(r"ID .*window 0: reasons is \[\], found \['temperature_drift'\]")
def evidence_that_speaks_against_it(study: Opened) -> None:
    for window in study.windows(study.good):
        window["evidence"]["after"]["devices"]["H100/0"]["temperature_c"] += 30


@way(r"ID .*window 0: generated_tokens of its evidence is \d+, found \d+")
def evidence_of_more_tokens(study: Opened) -> None:
    for window in study.windows(study.good):
        window["evidence"]["work"]["generated_tokens"] += 1


@way(r"ID launch 0 full: its reason does not tell of 'window_too_short")
def a_reason_taken_from_a_record(study: Opened) -> None:
    study.bad["reason"] = "window_too_short: and little else"


@way(r"ID launch 0 full: window_0 is True, found False")
def a_check_that_holds_after_all(study: Opened) -> None:
    next(c for c in study.bad["checks"] if c["name"] == "window_0")["ok"] = True


@way(r"ID launch 0 full: windows written as they closed is \[1\], found \[0, 1\]")
def a_window_line_dropped(study: Opened) -> None:
    study.lines.remove(study.line_of(study.good))


@way(r"ID launch 0 full: status is 'ok', found 'energy_invalid'")
def a_window_dropped_everywhere(study: Opened) -> None:
    study.lines.remove(study.line_of(study.good, 1))
    study.good["windows"].pop()


@way(r"window 0 has no record")
def a_record_dropped(study: Opened) -> None:
    study.lines.remove(study.good)


@way(r"ID launch 0 full: number of verdicts is 2, found 1")
def a_verdict_twice(study: Opened) -> None:
    study.lines.append(study.good)


@way(r"ID launch 0 full: its settings have the id \w+: config, or id, was changed")
def a_setting(study: Opened) -> None:
    study.good["config"]["engine.dtype"] = "float16"


@way(r"ID launch 0 full: chosen workload.batch_size is 8, found 4")
def a_choice(study: Opened) -> None:
    study.good["chosen"]["workload.batch_size"] = 8


@way(r"ID launch 0 full: measured, by simulated, is True, found False")
def a_simulation_called_a_measurement(study: Opened) -> None:
    study.good["energy"]["measured"] = True


@way(r"attachments/.*events.*: sha256 is '\w+', found '\w+'")
def another_byte_in_a_file(study: Opened) -> None:
    path = study.file(study.events_of(study.good))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@way(r"attachments/.*events.*: size is \d+, found \d+")
def a_file_cut_short(study: Opened) -> None:
    path = study.file(study.events_of(study.good))
    path.write_bytes(path.read_bytes()[:-100])


@way(r"attachments/.*events.*: cannot be read: No such file")
def a_file_lost(study: Opened) -> None:
    study.file(study.events_of(study.good)).unlink()


@way(r"ID .*window 0: its events are not there")
def a_file_forgotten(study: Opened) -> None:
    study.lines.remove(study.events_of(study.good))


@way(r"ID launch 0 full: cannot be followed: BadGzipFile|EOFError")
def a_file_of_something_else(study: Opened) -> None:
    study.replace_file(study.events_of(study.good), b"nothing of the kind")


@way(r"ID .*window 0: (requests|ttft_s|itl_s|tpot_s|latency_s).* (found|from the events)")
def events_a_little_faster(study: Opened) -> None:
    line = study.events_of(study.good)
    rows = [json.loads(row) for row in gzip.decompress(study.file(line).read_bytes()).splitlines()]
    for row in rows:
        row["t"] = [row["t"][0], *(step - step // 100 for step in row["t"][1:])]
    packed = "".join(json.dumps(row) + "\n" for row in rows)
    study.replace_file(line, gzip.compress(packed.encode()))


@way(r"ID .*window 0: devices of a reading is \['H100/7'\], found \['H100/0'\]")
def a_device_in_readings(study: Opened) -> None:
    for window in study.windows(study.good):
        for reading in window["readings"]:
            reading["energy_j"] = {"H100/7": reading["energy_j"]["H100/0"]}


@way(r"ID launch 0 full: devices is \['H100/0'\], found \[\]")
def a_device_of_the_lease(study: Opened) -> None:
    for line in study.of("trial"):
        line["devices"] = ["H100/7"]


@way(r"ID launch 0 full: no lease \w+ began before it")
def a_lease_that_never_began(study: Opened) -> None:
    study.lines = [line for line in study.lines if line["kind"] != "trial"]


@way(r"lease \w+ attempt 0: gpu_seconds is")
def the_price_of_a_lease(study: Opened) -> None:
    next(study.of("ended"))["gpu_seconds"] /= 2


@way(r"lease \w+ attempt 0: energy_j is .*, recomputed")
def the_joules_of_a_lease(study: Opened) -> None:
    next(study.of("ended"))["energy_j"] *= 0.9


@way(r"study\.yaml: is not the text that journal\.jsonl notes last")
def limits_in_the_journal(study: Opened) -> None:
    line = next(study.of("study"))
    line["text"] = line["text"].replace("latency_mean_s: 100.0", "latency_mean_s: 0.001")


@way(r"study\.yaml: is not the text that journal\.jsonl notes last")
def limits_in_the_study(study: Opened) -> None:
    path = study.folder / "study.yaml"
    path.write_text(path.read_text().replace("latency_mean_s: 100.0", "latency_mean_s: 0.001"))


@way(r"journal\.jsonl: its first line, and no other, is of kind journal")
def the_first_line(study: Opened) -> None:
    del study.lines[0]


@pytest.mark.parametrize("name", WAYS)
def test_tampering_is_found_and_named(honest: Path, tmp_path: Path, name: str):
    tamper, said = WAYS[name]
    folder = tmp_path / honest.name
    shutil.copytree(honest, folder)
    study = Opened(folder)
    ids = (study.good["id"], study.bad["id"])
    tamper(study)
    study.close()
    differences = [str(each) for each in verified(folder).tally.differences]
    patterns = [said.replace("ID", each) for each in ids]
    assert any(re.search(each, line) for line in differences for each in patterns), differences


def test_what_was_tampered_with_was_honest_before(honest: Path):
    report = assert_verified(honest)
    assert report.counts["verdicts"] == 4
    assert len(WAYS) >= 10


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"kind": "window", "id": "abc', "line 4: cannot be followed: JSONDecodeError"),
        (b"\xff\xfe", "line 4: cannot be followed: UnicodeDecodeError"),
        (b"[1, 2]", "line 4: cannot be followed: TypeError"),
        (b'{"kind": "unheard of"}', "line 4: cannot be followed: KeyError: 'unheard of'"),
        (b'{"kind": "record"}', "line 4, a record: what it lacks is ['status', 'id', "),
        (b'{"kind": "study", "text": "a: [1,"}', "a study's text in the journal: cannot be"),
    ],
)
def test_a_line_that_is_none_is_named(honest: Path, tmp_path: Path, line: bytes, said: str):
    folder = tmp_path / honest.name
    shutil.copytree(honest, folder)
    path = folder / "journal.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:3], line + b"\n", *lines[3:]]))
    found = [str(each) for each in verified(folder).tally.differences]
    assert any(said in each for each in found), found


def test_any_change_of_any_number_in_a_window_is_found(honest: Path, tmp_path: Path):
    """But of what devices and clocks told at its edges, of which there is nothing else."""
    folder = tmp_path / honest.name
    shutil.copytree(honest, folder)
    for path in numbers(Opened(folder).good["windows"][0]):
        if path[:2] in {("evidence", "before"), ("evidence", "after")}:
            continue
        study = Opened(honest)
        study.folder = folder
        for window in study.windows(study.good):
            change(window, path)
        study.close()
        assert not verified(folder).ok, path


def numbers(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where numbers stand, of a list the first and last."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from numbers(value, (*path, key))
    elif isinstance(node, list) and node:
        for place in {0, len(node) - 1}:
            yield from numbers(node[place], (*path, place))
    elif isinstance(node, int | float) and not isinstance(node, bool):
        yield path


def change(node: Any, path: tuple[Any, ...]) -> None:
    *above, last = path
    for key in above:
        node = node[key]
    node[last] += 1
