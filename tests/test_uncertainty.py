"""What every output says of uncertainty: intervals from launches alone, gain, ties, claims."""

import csv
import io
import json
import re

import pytest

from sweeper.answers.best import answers
from sweeper.answers.change_words import MINUS
from sweeper.answers.export import rows, table_bytes
from sweeper.answers.page import page
from sweeper.answers.page_figures import figures
from sweeper.answers.receipt import receipt
from sweeper.answers.summary import answers_object
from sweeper.answers.table import table
from sweeper.results.contents import Contents
from sweeper.spec import Axis, Settings, Study
from tests.records import make_record, make_window, two_objectives

WIDTH, ENERGY = "engine.tensor_parallel", "energy_per_output_token_j"
STUDY = Study(
    name="a_study",
    settings=Settings(),
    axes=(Axis(label=WIDTH, choices=tuple({WIDTH: width} for width in (1, 2, 4))),),
    baseline={WIDTH: 1},
    limits={"latency_mean_s": 100.0},
)
INTERVAL = re.compile(
    rf"±(?!5 %)|ci95|\[[+{MINUS}0]|\bp (?:<|&lt;|[0-9])|significant,|significant\": (?!null)"
    '|class="bar '
)
"""The marks of an interval or of a p, but for the gain error, which is 5 %."""


def several_windows(launches):
    """Three windows a launch, which differ, of three widths."""
    return [
        make_record(
            f"w{width}",
            launch=launch,
            chosen={WIDTH: width},
            windows=[
                make_window(
                    index,
                    energy_j=3000.0 / width + 100 * index + 10 * launch,
                    latency_s=(2.0 * width + index, 3.0),
                )
                for index in range(3)
            ],
            trial_id=f"t{width}-{launch}",
        )
        for width in (1, 2, 4)
        for launch in range(launches)
    ]


def in_blocks(count, boards="ab"):
    return [
        make_record(
            f"w{width}",
            launch=block,
            stage="final",
            chosen={WIDTH: width},
            metrics=two_objectives(
                (9.0 - width) * (1 + 0.2 * (block % 3) + 0.004 * ((block * width) % 5)), width
            ),
            trial_id=f"block{block}",
            environment={"devices": {"gpus": [{"uuid": boards[block % len(boards)]}]}},
        )
        for width in (1, 2, 4)
        for block in range(count)
    ]


def told(records, study=STUDY):
    """Everything that is ever said of these records, by where."""
    found = answers(records, study)
    contents = Contents(records=tuple(records))
    body = page(study, contents, found).split("<h2>Methods")[0]
    return {
        "table": table(study, records, found),
        "page": re.sub(r"<style>.*?</style>|<script>.*?</script>", "", body, flags=re.DOTALL),
        "figures": b"".join(figures(study, found).values()).decode(),
        "export": table_bytes(rows(records, found), ".csv").decode(),
        "json": json.dumps(answers_object(study.name, found, records)),
        "receipt": receipt(records, "w1"),
    }


@pytest.mark.parametrize("where", ["table", "page", "figures", "export", "json", "receipt"])
def test_with_one_launch_no_interval_is_given_anywhere(where):
    text = told(several_windows(1))[where].partition('id="methods-title"')[0]
    assert "w1" in text or where == "figures"
    assert INTERVAL.findall(text) == []


@pytest.mark.parametrize("where", ["table", "page", "figures", "export", "json"])
def test_two_launches_give_an_interval_everywhere(where):
    text = told(several_windows(2))[where].partition('id="methods-title"')[0]
    assert INTERVAL.search(text)


@pytest.mark.parametrize("launches", [1, 3])
def test_the_gain_error_stands_beside_absolute_joules_and_in_no_interval(launches):
    said = told(several_windows(launches))
    for where in ("table", "page", "receipt"):
        assert "gain error of the meter ±5 %" in said[where]
    for row in csv.DictReader(io.StringIO(said["export"])):
        assert float(row["energy_systematic"]) == 0.05
    entries = [e for each in json.loads(said["json"])["answers"] for e in each["front"]]
    assert {each["energy"]["systematic"] for each in entries} == {0.05}
    halves = {
        (each["metrics"][f"{ENERGY}_ci95_high"] / each["metrics"][ENERGY] - 1)
        for each in entries
        if launches > 1
    }
    assert all(half < 0.05 for half in halves)


def test_claims_are_the_same_in_table_page_export_and_json():
    said = told(in_blocks(6))
    [answer] = json.loads(said["json"])["answers"]
    change = {each["id"]: each["changes"][ENERGY] for each in answer["savings"]}["w4"]
    assert (change["paired"], change["blocks"], change["comparisons"]) == (True, 6, 2)
    assert (change["adjustment"], change["significant"]) == ("Holm", True)
    assert (change["boards"], change["systematic"]) == ([2, 2], None)
    assert change["ratio"] == pytest.approx(5 / 8, rel=0.01)
    assert change["p"] < change["p_adjusted"] < 0.001
    by_id = {row["id"]: row for row in csv.DictReader(io.StringIO(said["export"]))}
    assert float(by_id["w4"][f"{ENERGY}_ratio"]) == change["ratio"]
    assert float(by_id["w4"][f"{ENERGY}_ratio_p_adjusted"]) == change["p_adjusted"]
    assert by_id["w4"][f"{ENERGY}_ratio_adjustment"] == "Holm"
    assert by_id["w4"]["baseline"] == "w1"
    assert by_id["w1"][f"{ENERGY}_ratio"] == ""
    assert "< 0.001*" in said["table"]
    assert "paired 6" in said["table"]
    assert "significant, p &lt; 0.001 (Holm, over 2)" in said["page"]
    assert "beside it" not in said["page"]


def test_five_blocks_are_too_few_to_claim():
    said = told(in_blocks(5))
    assert "no claim, fewer than 6 blocks" in said["page"]
    assert "< 0.001~" in said["table"]
    [answer] = json.loads(said["json"])["answers"]
    for each in answer["savings"]:
        assert each["changes"][ENERGY]["significant"] is None
        assert each["changes"][ENERGY]["adjustment"] == "Benjamini-Hochberg"


def test_boards_that_no_launch_varied_are_said_beside_the_change():
    records = several_windows(2)
    said = told(records)
    assert "±5 % of the boards&#x27; gain on each side beside it" in said["page"]
    assert "unpaired 2+2 ^" in said["table"]
    assert "^ ±5 % of the boards' gain on each side, not in the interval" in said["table"]


def launched(name, energies, latencies):
    return [
        make_record(name, launch=launch, metrics=two_objectives(*each))
        for launch, each in enumerate(zip(energies, latencies, strict=True))
    ]


def test_ties_on_the_front_are_said_as_ties():
    """a and b overlap in both; c in energy alone; d is beaten, but not beyond its interval."""
    records = [
        *launched("a", (1.0, 1.2), (5.0, 5.2)),
        *launched("b", (1.1, 1.3), (4.9, 5.1)),
        *launched("c", (1.0, 1.5), (8.0, 8.0)),
        *launched("d", (1.2, 1.4), (5.1, 5.3)),
        *launched("e", (90.0, 90.0), (1.0, 1.0)),
    ]
    study = Study(name="a_study", settings=Settings())
    [answer] = answers(records, study)
    found = {
        each.id: {tie.id for tie in ties}
        for each, ties in zip(answer.front, answer.front_ties, strict=True)
    }
    assert found == {"a": {"b", "d"}, "b": {"a", "d"}, "e": set()}
    text = table(study, records, [answer])
    marks = {line.split()[0]: line for line in text.splitlines() if line.startswith("  ")}
    assert "front (tied)" in marks["a"]
    assert "tied with front" in marks["d"]
    assert "tied" not in marks["e"]
    assert "tied: intervals overlap in every objective" in text
    [told_] = answers_object("s", [answer], records)["answers"]
    assert told_["front"][0]["ties"] == ["b", "d"]
