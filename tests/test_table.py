from dataclasses import replace

import pytest

from sweeper.answers.best import answers
from sweeper.answers.figure import figure
from sweeper.answers.panel import series
from sweeper.answers.results import results
from sweeper.answers.table import headline, table
from sweeper.answers.units import digits, exponent, label, quantity
from sweeper.results.record import Check
from sweeper.spec import Settings, Study
from tests.records import ESTIMATED, SIMULATED, make_record, two_objectives

STUDY = Study(name="a_study", settings=Settings(), limits={"tpot_p99_s": 0.05})
ENERGY = "energy_per_output_token_j"


def records(launches=1, **fields):
    return [
        make_record(
            f"{width}-{size}",
            launch=launch,
            metrics=two_objectives(
                0.3 * width / size + 0.001 * launch,
                (1 + 0.1 * size) / width,
                tpot_p99_s=0.01 * size / width,
                output_tokens_per_s=64.0 * size,
            ),
            chosen={"engine.tensor_parallel": width, "workload.batch_size": size},
            gpus=width,
            **fields,
        )
        for width in (1, 2)
        for size in (1, 4, 16)
        for launch in range(launches)
    ]


def shown(given, study=STUDY):
    return table(study, given, answers(given, study))


def rows(text):
    """Cells by id, of the lines that show a result."""
    lines = [line.split() for line in text.splitlines()]
    return {
        cells[0]: cells[1:] for cells in lines if cells and cells[0][0] in "12" and "-" in cells[0]
    }


def test_every_result_has_a_row_sorted_by_the_first_objective_with_its_marks():
    text = shown(records())
    found = rows(text)
    assert list(found) == ["1-16", "2-16", "1-4", "2-4", "1-1", "2-1"]
    assert found["1-16"][:3] == ["1", "16", "18.8"]
    assert "160!" in found["1-16"]
    assert found["2-16"][-1] == "front"
    assert found["1-4"][-2:] == ["1", "best"]
    assert "[mJ/token]" in text
    assert "! beyond a limit" in text
    assert "best: 1-4: least energy_per_output_token_j, 75.0 mJ/token" in text
    assert "$ vllm serve some/model" in text
    assert "gain error of the meter ±5 %" in text
    assert max(len(line) for line in text.splitlines()) <= 120


def test_intervals_and_small_samples_are_marked_and_explained():
    text = shown(
        [
            *records(2),
            make_record(
                "9-9", metrics=two_objectives(1, 1, tpot_p99_s=0.01), undersampled=["tpot_p99_s"]
            ),
        ]
    )
    assert "± half of the 95 % interval over launches" in text
    assert "10.0?" in text
    assert "? a percentile of too few samples" in text


@pytest.mark.parametrize(("energy", "word"), [(ESTIMATED, "estimate"), (SIMULATED, "simulation")])
def test_energy_that_is_not_measured_says_so_where_it_stands(energy, word):
    text = shown(records(energy=energy))
    assert f"{word.upper()}, NOT MEASURED" in text
    assert f"({word})" in text
    assert f"mJ/token ({word}, not measured)" in text.replace("\n        ", " ")
    assert "measured" not in shown(records()).replace("not measured", "")


def test_a_result_without_energy_is_shown_with_a_dash_and_its_reason():
    broken = make_record(
        "9-9",
        status="energy_invalid",
        reason="counter_reset: GPU-0",
        metrics=two_objectives(1, 1.0),
    )
    text = shown([*records(), broken])
    assert " - " in next(line for line in text.splitlines() if line.startswith("  9-9"))
    assert "without energy: 1\n  1 x counter_reset: GPU-0" in text


def test_what_gave_no_result_is_counted_by_reason_and_point():
    given = [
        *records(),
        *(
            make_record(f"x{number}", launch=launch, status="infeasible", reason="no memory\nlong")
            for number in range(5)
            for launch in range(2)
        ),
        make_record("y", status="failed", chosen={"workload.batch_size": 9}),
    ]
    text = shown(given)
    assert "infeasible: 5\n  5 x no memory\n      x0 (" in text
    assert "and 2 more" in text
    assert "long" not in text
    assert "failed: 1\n  1 x no reason given\n      y (batch_size=9)" in text


def test_what_is_beside_the_gpus_has_a_table_of_its_own_and_is_in_no_joules():
    beside = {"cpu_energy_per_output_token_j": 0.01, "beside_energy_share": 0.2}
    given = [replace(each, metrics={**each.metrics, **beside}) for each in records()]
    text = shown(given)
    title = "  beside the launch's GPUs, and not in the joules above:\n"
    assert title not in shown(records())
    above, below = text.split(title)
    assert rows(above) == rows(shown(records()).partition("\n\n")[0])
    assert [line.split() for line in below.splitlines() if line.startswith("  1-16")] == [
        ["1-16", "1", "16", "10.0", "0.200"]
    ]
    assert "DRAM" not in below
    assert "[]" not in text


def test_a_component_that_was_asked_for_and_is_missing_is_told_with_its_reason():
    lost = Check(name="dram_energy", ok=False, detail="not_supported: no counter of dram")
    left = Check(name="cpu_energy", ok=True, detail="not_exclusive: others may run here")
    text = shown([replace(each, checks=(lost, left)) for each in records()])
    assert "not known beside the GPUs:\n" in text
    assert "  the node's memory: not_supported: no counter of dram (6 points)" in text
    assert "not_exclusive" not in text


def test_a_table_does_not_depend_on_the_order_of_records():
    given = records(2)
    assert shown(given) == shown(given[::-1])


def test_conditions_have_a_table_each_and_one_without_results_says_why():
    given = [
        *records(condition={"workload.input_tokens": 128}),
        make_record("z", status="infeasible", condition={"workload.input_tokens": 9000}),
    ]
    text = shown(given)
    assert text.index("input_tokens=128") < text.index("input_tokens=9000\n  nothing was measured")


def test_no_records_at_all():
    assert shown([]) == "\n"


@pytest.mark.parametrize(
    ("value", "metric", "text"),
    [
        (0.0412, ENERGY, "41.2 mJ/token"),
        (4120.0, "energy_j", "4.12 kJ"),
        (0.00095, "tpot_p99_s", "950 µs"),
        (5000.0, "duration_s", "5,000 s"),
        (123456.0, "output_tokens_per_s", "123,456 tokens/s"),
        (0.0123, "requests_per_s", "0.0123 requests/s"),
        (0.0, "energy_j", "0 J"),
        (7.5, "accepted_drafts", "7.50"),
        (8e10, "peak_memory_bytes", "80.0 GB"),
    ],
)
def test_quantities_read_well(value, metric, text):
    assert quantity(value, metric) == text


def test_a_column_takes_the_prefix_of_its_smallest_value():
    assert exponent([3.0, 0.04], ENERGY) == -3
    assert digits(3.0, -3) == "3,000"
    assert digits(9.996e-4, -3) == "1.00"
    assert (label("ttft_p99_s"), label("latency_mean_s")) == ("TTFT p99", "latency mean")


def test_the_figure_is_a_picture_that_says_what_it_is_of():
    given = records(2, energy=ESTIMATED)
    picture = figure(answers(given, STUDY), STUDY)
    assert picture.startswith(b"\x89PNG")
    assert figure(answers(given[::-1], STUDY), STUDY) == picture
    drawing = figure(answers(given, STUDY), STUDY, form="svg").decode()
    assert "<svg" in drawing
    for words in (
        "a_study   [ESTIMATE, NOT MEASURED]",
        "best: tensor_parallel=1, batch_size=4",
        "tensor_parallel=2",
        "hollow: not tpot_p99_s",
    ):
        assert f"<!-- {words}" in drawing or words in drawing


def test_no_figure_of_nothing():
    bare = [make_record("a", metrics={"latency_mean_s": 1.0})]
    assert figure(answers(bare, STUDY), STUDY) is None
    assert figure((), STUDY) is None


def test_a_series_runs_along_the_choice_with_the_most_values():
    found = series(results(records()))
    assert {name: len(members) for name, members in found.items()} == {
        "tensor_parallel=1": 3,
        "tensor_parallel=2": 3,
    }


def test_a_figure_of_three_objectives_or_one():
    for objectives in (
        {ENERGY: "min", "latency_mean_s": "min", "output_tokens_per_s": "max"},
        {"latency_mean_s": "min"},
        {ENERGY: "max", "output_tokens_per_s": "max"},
    ):
        study = Study(name="$odd_^name$", settings=Settings(), objectives=objectives)
        assert figure(answers(records(), study), study) is not None


def test_the_headline_names_the_best_by_what_was_chosen_and_says_when_it_is_no_measurement():
    given = records(energy=ESTIMATED)
    [found] = answers(given, STUDY)
    assert headline([found]) == (
        "best tensor_parallel=1, batch_size=4, 75.0 mJ/token (estimate, not measured)"
    )


def test_the_headline_says_why_there_is_no_best():
    given = records()
    strict = Study(name="a_study", settings=Settings(), limits={"tpot_p99_s": 1e-9})
    assert headline(answers(given, strict)).startswith("no best: ")
    assert headline([]) == "nothing was measured"


def test_random_weights_are_said_to_be():
    assert "random weights" in shown(records(config={"model.weights": "dummy"}))
    assert "random weights" not in shown(records(config={"model.weights": "auto"}))
