from sweeper.results.entries import row_of
from sweeper.results.note import NOTE, record_note, study_note
from sweeper.results.record import Check
from tests.records import ESTIMATED, MEASURED, SIMULATED, make_record

LIMIT = 5000


def test_a_note_says_first_what_the_joules_are():
    notes = {
        "estimate": record_note(make_record(energy=ESTIMATED)),
        "measured": record_note(make_record(energy=MEASURED)),
        "simulated": record_note(make_record(energy=SIMULATED)),
        "none": record_note(make_record(energy=None)),
        "engine": record_note(make_record(config={"engine.kind": "simulated"})),
    }
    assert {kind: note.splitlines()[0] for kind, note in notes.items()} == {
        "estimate": "**ok**. Energy: **estimate, not measured** (codecarbon, of the node)",
        "measured": "**ok**. Energy: measured (nvml, of the gpu, by counter)",
        "simulated": "**ok**. Energy: **simulation, not measured** (simulated, of the gpu)",
        "none": "**ok**",
        "engine": "**ok**. **Simulation, not measured**: every number is of a simulated engine",
    }


def test_a_note_says_what_casts_doubt_and_what_launches_it():
    note = record_note(
        make_record(
            status="energy_invalid",
            reason="counter_reset: of *GPU*\n0",
            undersampled=["latency_p99_s"],
            energy=None,
            checks=[Check(name="gpu_free", ok=True), Check(name="alone", ok=False, detail="2 <b>")],
            launch_command="vllm serve \\\n  `x`",
        )
    )
    assert note.split("\n\n") == [
        r"**energy_invalid**: counter\_reset: of \*GPU\* 0",
        r"Too few samples for latency\_p99\_s.",
        r"Did not hold: alone (2 \<b\>)",
        "~~~text\nvllm serve \\\n  `x`\n~~~",
    ]
    assert record_note(make_record(launch_command=None, energy=None, undersampled=())) == "**ok**"
    assert row_of(make_record(), "x").tags[NOTE] == record_note(make_record())


def test_a_note_too_long_for_a_tag_keeps_its_first_lines():
    lines = "".join(f"line {number}\n" for number in range(2000))
    for note in (
        study_note("best: x", lines),
        study_note(lines, lines),
        record_note(make_record(reason="r" * 9000, launch_command=lines)),
    ):
        assert LIMIT - 100 < len(note) <= LIMIT
        assert note.endswith("\n[... the rest is left out here ...]\n~~~")
    assert study_note("best: x_y", "a\nb\n") == "best: x\\_y\n\n~~~text\na\nb\n~~~"


def test_a_child_is_named_by_what_was_moved_and_by_what_else_tells_it_apart():
    moved = {"workload.batch_size": 4, "engine.tensor_parallel": 2}
    assert row_of(make_record(chosen=moved), "x").name == "batch_size=4 tensor_parallel=2"
    kinds = {"engine.kind": "vllm", "workload.kind": "fixed"}
    assert row_of(make_record(chosen=kinds), "x").name == "engine.kind=vllm workload.kind=fixed"
    again = make_record(chosen=moved, launch=1, stage="final", attempt=2)
    name = "batch_size=4 tensor_parallel=2 launch=1 stage=final attempt=2"
    assert row_of(again, "x").name == name
    assert row_of(make_record("p"), "x").name == "p"
