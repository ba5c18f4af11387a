"""What a record tells of vLLM's scheduler and of its own choices: pure, no vLLM."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper.engines.vllm_experts import BANDS, Routing
from sweeper.engines.vllm_resolved import comparable, refuse_other_than_asked
from sweeper.engines.vllm_tally import Tally
from sweeper.engines.vllm_unasked import (
    PINS,
    asked_options,
    asked_runner,
    changed,
    left_open,
    runner_version,
    taken,
)
from sweeper.errors import WrongSetting
from sweeper.results.metrics import COUNTS
from sweeper.spec import EngineSpec
from tests.vllm_stats import scheduler

ENDED = SimpleNamespace(finished_requests=[1, 2], num_preempted_reqs=1)
USUAL = {
    "async_scheduling": True,
    "runner_version": 2,
    "chunked_prefill": True,
    "attention": "FLASH_ATTN",
    "graph_mode": "FULL_AND_PIECEWISE",
}


def test_requests_that_a_step_ended_ran_in_it():
    tally = Tally()
    tally.begin("a point")
    tally.record(scheduler(num_running_reqs=4, kv_cache_usage=0.7), None)
    tally.record(scheduler(num_running_reqs=2), ENDED)
    tally.record(scheduler(), None)
    counts = tally.counts(drafts=False, prefixes=False)
    assert counts == {
        "preemptions": 1,
        "kv_cache_used_peak": 0.7,
        "scheduler_steps": 2,
        "running_requests_mean": 4.0,
        "running_requests_max": 4,
    }


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 9)), min_size=1, max_size=30))
def test_every_point_has_steps_of_its_own(told):
    tally = Tally()
    for point, running in told:
        tally.begin(point)
        tally.record(scheduler(num_running_reqs=running), None)
    for point in {point for point, _ in told}:
        tally.begin(point)
        ran = [running for of, running in told if of == point and running]
        counts = tally.counts(drafts=False, prefixes=False)
        assert counts.get("scheduler_steps", 0) == len(ran)
        if ran:
            assert counts["running_requests_mean"] == pytest.approx(sum(ran) / len(ran))
            assert counts["running_requests_max"] == max(ran)


def test_graphs_and_prefixes_are_told_where_there_are_any():
    tally = Tally()
    plain = tally.counts(drafts=False, prefixes=False)
    assert not any("graph" in name or "prefix" in name for name in plain)
    for mode, padding in (("FULL", 3), ("FULL", 0), ("PIECEWISE", 1)):
        tally.record(
            scheduler(
                cudagraph_stats=SimpleNamespace(runtime_mode=mode, num_paddings=padding),
                prefix_cache_stats=SimpleNamespace(queries=32, hits=16),
            ),
            None,
        )
    counts = tally.counts(drafts=True, prefixes=True)
    assert counts["steps_in_full_graphs"] == 2
    assert counts["steps_in_piecewise_graphs"] == 1
    assert counts["steps_without_graphs"] == 0
    assert counts["graph_padding_tokens"] == 4
    assert (counts["prefix_tokens_looked_up"], counts["prefix_tokens_found"]) == (96, 48)
    assert set(counts) <= set(COUNTS)


def test_what_a_draft_moves_is_named_with_the_key_that_pins_the_other_side():
    with_draft = {**USUAL, "async_scheduling": False, "runner_version": 1}
    open_ = EngineSpec(kind="vllm")
    said = changed(left_open(open_, with_draft), "FULL_AND_PIECEWISE", on_gpu=True)
    assert said == {
        "async_scheduling": "False in place of True; engine.options.async_scheduling pins it",
        "runner_version": "1 in place of 2; engine.env.VLLM_USE_V2_MODEL_RUNNER pins it",
    }
    assert changed(left_open(open_, USUAL), "FULL_AND_PIECEWISE", on_gpu=True) == {}
    degraded = {**USUAL, "graph_mode": "PIECEWISE"}
    assert set(changed(left_open(open_, degraded), USUAL["graph_mode"], on_gpu=True)) == {
        "graph_mode"
    }
    pinned = EngineSpec(
        kind="vllm",
        options={"async_scheduling": False},
        env={"VLLM_USE_V2_MODEL_RUNNER": "0"},
    )
    left = left_open(pinned, with_draft)
    assert set(left) == set(PINS) - {"async_scheduling", "runner_version"}
    assert changed(left, "FULL_AND_PIECEWISE", on_gpu=True) == {}


def test_a_processor_has_other_usual_choices():
    on_cpu = {**USUAL, "async_scheduling": False, "runner_version": 1, "graph_mode": "NONE"}
    left = left_open(EngineSpec(kind="vllm"), on_cpu)
    assert changed(left, "NONE", on_gpu=False) == {}
    whole = left_open(EngineSpec(kind="vllm"), {**on_cpu, "chunked_prefill": False})
    assert set(changed(whole, "NONE", on_gpu=False)) == {"chunked_prefill"}


@pytest.mark.parametrize(
    ("module", "version"),
    [
        ("vllm.v1.worker.gpu.model_runner", 2),
        ("vllm.v1.worker.gpu_model_runner", 1),
        ("vllm.v1.worker.cpu_model_runner", 1),
    ],
)
def test_a_runner_is_known_by_its_module(module, version):
    assert runner_version(module) == version


def test_a_runner_is_asked_for_by_a_variable():
    def asked(value):
        return asked_runner(EngineSpec(env={"VLLM_USE_V2_MODEL_RUNNER": value}))

    assert [asked("1"), asked("0"), asked("true"), asked("False")] == [2, 1, 2, 1]
    assert asked_runner(EngineSpec()) is None


def test_options_are_held_against_what_vllm_tells_of_them():
    options = {"block_size": 32, "seed": 3, "no_part_tells": 1, "kv_transfer_config": {"a": 1}}
    options["mamba_cache_dtype"] = "auto"
    config = SimpleNamespace(
        cache_config=SimpleNamespace(block_size=16, mamba_cache_dtype="float32"),
        model_config=SimpleNamespace(seed=3),
    )
    told = taken(config, options)
    assert told == {"block_size": 16, "seed": 3, "mamba_cache_dtype": "float32"}
    wanted = comparable({"options_taken": asked_options(options)}, {"options_taken": told})
    assert wanted == {"options_taken": {"block_size": 32, "seed": 3}}
    with pytest.raises(WrongSetting, match=r"'block_size': 32.*took \{'block_size': 16"):
        refuse_other_than_asked(wanted, {"options_taken": told})
    refuse_other_than_asked(wanted, {"options_taken": {**told, "block_size": 32}})


def test_loads_of_experts_are_told_as_a_histogram():
    """Two layers of four experts, two of them a token: 6, 2, 0, 0 tokens and 2, 2, 2, 2."""
    routing = Routing(4)
    assert routing.counts() == {}
    routing.add([[[0, 1], [0, 1]], [[0, 1], [2, 3]]])
    routing.add([[[0, 0], [0, 1]], [[0, 0], [2, 3]]])
    assert routing.counts() == {
        "expert_choices": 16,
        "experts_idle_share": 2 / 8,
        "expert_load_max_ratio": (3 + 1) / 2,
        "experts_below_half_share": 2 / 8,
        "experts_half_to_even_share": 0,
        "experts_even_to_double_share": 5 / 8,
        "experts_above_double_share": 1 / 8,
    }


@given(
    st.integers(1, 8).flatmap(
        lambda experts: st.tuples(
            st.just(experts),
            st.lists(st.integers(0, experts - 1), min_size=1, max_size=40),
        )
    )
)
def test_every_expert_is_in_one_band(told):
    experts, chosen = told
    routing = Routing(experts)
    routing.add([[[expert]] for expert in chosen])
    counts = routing.counts()
    assert sum(counts[name] for name, _, _ in BANDS) == pytest.approx(1)
    assert counts["expert_choices"] == len(chosen)
    busiest = max(chosen.count(expert) for expert in range(experts))
    assert counts["expert_load_max_ratio"] == pytest.approx(busiest * experts / len(chosen))
    assert counts["experts_idle_share"] == pytest.approx(1 - len(set(chosen)) / experts)
    assert set(counts) <= set(COUNTS)
