from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper.errors import StudyError
from sweeper.feasibility import impossible
from sweeper.gpu_data import GPUS, Gpu, gpu
from sweeper.roofline import (
    BANDWIDTH_EFFICIENCY,
    Estimate,
    estimate,
    load_seconds,
    memory,
    point_energy_j,
    point_seconds,
    work,
)
from sweeper.shapes import known, shape
from sweeper.spec import (
    TEMPERATURE_S,
    EngineSpec,
    MeasureSpec,
    ModelSpec,
    Settings,
    Sizes,
    WarmupSpec,
    WorkloadSpec,
)

BATCHES = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]


def settings(
    name: str = "llama-3.1-8b",
    batch: int = 1,
    *,
    input_tokens: int = 512,
    output_tokens: int = 64,
    batching: str = "continuous",
    requests: int | str = "auto",
    measure: MeasureSpec | None = None,
    **engine: object,
) -> Settings:
    return Settings(
        model=ModelSpec(shape=name),
        engine=EngineSpec(**engine),
        workload=WorkloadSpec(
            batch_size=batch,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            batching=batching,
            requests=requests,
        ),
        measure=measure or MeasureSpec(),
    )


def sizes(of: Settings) -> Sizes:
    workload = of.workload
    return Sizes(
        max_model_len=workload.input_tokens + workload.output_tokens,
        max_batch_size=workload.batch_size,
        batch_sizes=(workload.batch_size,),
    )


def of(name: str, batch: int, gpu_name: str = "H100", **more: object) -> Estimate:
    return estimate(settings(name, batch, **more), shape(name), gpu(gpu_name))


def fits(name: str, batch: int, gpu_name: str, **more: object) -> bool:
    asked = settings(name, batch, **more)
    return memory(asked, shape(name), gpu(gpu_name), sizes(asked)).fits


@pytest.mark.parametrize("each", GPUS, ids=lambda each: each.name)
def test_every_constant_of_a_gpu_has_a_source(each: Gpu) -> None:
    constants = {field.name for field in fields(Gpu)} - {"name", "names", "sources"}
    given_ = {name for name in constants if getattr(each, name) is not None}
    assert set(each.sources) == given_
    assert all(each.sources.values())


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("NVIDIA H200", "H200"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA RTX A6000", "A6000"),
        ("NVIDIA RTX 6000 Ada Generation", "6000 Ada"),
        ("NVIDIA A100 80GB PCIe", "A100 PCIe"),
        ("NVIDIA A100-SXM4-80GB", "A100 SXM"),
        ("NVIDIA B200", "B200"),
        ("a100", "A100 SXM"),
        ("h100_sxm", "H100"),
        ("A100-PCIe", "A100 PCIe"),
        ("6000ada", "6000 Ada"),
    ],
)
def test_gpus_by_the_names_people_and_nvml_use(name: str, found: str) -> None:
    assert gpu(name).name == found


@pytest.mark.parametrize("name", ["H900", "cpu", "", "NVIDIA A100-PCIE-40GB"])
def test_an_unknown_gpu_is_refused_with_those_known(name: str) -> None:
    with pytest.raises(StudyError, match=r"known: A6000, .*B200"):
        gpu(name)


@pytest.mark.parametrize("gpu_name", [each.name for each in GPUS])
def test_tensor_parallel_at_batch_1_is_faster_and_takes_more_energy(gpu_name: str) -> None:
    one, two, four = (of("llama-3.1-8b", 1, gpu_name, tensor_parallel=n) for n in (1, 2, 4))
    assert one.latency_s > two.latency_s > four.latency_s
    energies = [each.energy_per_output_token_j for each in (one, two, four)]
    assert energies == sorted(energies)
    assert energies[1] > 1.03 * energies[0]


def test_tensor_parallel_on_h100_is_near_the_published_changes() -> None:
    one, two, four = (of("llama-3.1-8b", 1, tensor_parallel=n) for n in (1, 2, 4))
    assert two.latency_s / one.latency_s - 1 == pytest.approx(-0.4016, abs=0.06)
    assert four.latency_s / one.latency_s - 1 == pytest.approx(-0.6134, abs=0.06)
    energy = one.energy_per_output_token_j
    assert two.energy_per_output_token_j / energy - 1 == pytest.approx(0.293, abs=0.15)
    assert four.energy_per_output_token_j / energy - 1 == pytest.approx(0.5523, abs=0.15)


def test_energy_falls_with_batch_until_saturation_and_latency_rises() -> None:
    curve = [of("llama-3.1-8b", batch) for batch in BATCHES]
    energies = [each.energy_per_output_token_j for each in curve]
    latencies = [each.latency_s for each in curve]
    assert energies == sorted(energies, reverse=True)
    assert latencies == sorted(latencies)
    assert energies[1] < 0.6 * energies[0]
    assert energies[-1] > 0.8 * energies[-2]


@pytest.mark.parametrize("gpu_name", ["H100", "A100", "A100 PCIe"])
def test_70b_needs_more_than_one_gpu_of_80_gb(gpu_name: str) -> None:
    assert not fits("llama-3.1-70b", 1, gpu_name)
    assert fits("llama-3.1-70b", 8, gpu_name, tensor_parallel=4)


def test_70b_needs_two_h200() -> None:
    assert not fits("llama-3.1-70b", 1, "H200")
    assert fits("llama-3.1-70b", 8, "H200", tensor_parallel=2)


def test_what_does_not_fit_is_said_in_bytes() -> None:
    asked = settings("llama-3.1-70b")
    found = memory(asked, shape("llama-3.1-70b"), gpu("H100"), sizes(asked))
    assert found.weights_bytes == 2 * shape("llama-3.1-70b").parameters
    parts = found.weights_bytes + found.kv_cache_bytes + found.workspace_bytes
    assert found.needed_bytes == parts
    assert found.reason.startswith(f"out of memory: each GPU needs {parts / 1e9:.1f} GB")
    assert f"{found.available_bytes / 1e9:.1f} GB of H100's 85.5 GB are available" in found.reason


def test_the_kv_cache_of_the_whole_batch_counts() -> None:
    asked = settings(batch=64)
    found = memory(asked, shape("llama-3.1-8b"), gpu("H100"), sizes(asked))
    assert found.kv_cache_bytes == 64 * 576 * 128 * 1024
    halved = replace(asked, engine=EngineSpec(kv_cache_dtype="fp8"))
    less = memory(halved, shape("llama-3.1-8b"), gpu("H100"), sizes(asked))
    assert less.kv_cache_bytes == found.kv_cache_bytes / 2
    assert fits("llama-3.1-8b", 512, "H100")
    assert not fits("llama-3.1-8b", 512, "H100", input_tokens=2048)


def test_heads_that_cannot_be_shared_further_are_copied() -> None:
    name = "llama-3.1-8b"
    eight, sixteen = (settings(name, 32, tensor_parallel=n) for n in (8, 16))
    needed = [memory(each, shape(name), gpu("H100"), sizes(each)) for each in (eight, sixteen)]
    assert needed[0].kv_cache_bytes == needed[1].kv_cache_bytes
    assert needed[0].weights_bytes == 2 * needed[1].weights_bytes


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (settings(tensor_parallel=3), "32 attention heads"),
        (settings("tiny", pipeline_parallel=8), "4 layers, fewer than"),
        (settings("olmo-1b", input_tokens=2048), "takes at most 2048"),
        (settings(tensor_parallel=4, pipeline_parallel=2), None),
    ],
)
def test_what_cannot_exist_whatever_the_memory(asked: Settings, said: str | None) -> None:
    found = impossible(asked, shape(asked.model.shape or ""), sizes(asked))
    assert found is None if said is None else said in (found or "")


def test_the_mixture_at_batch_1_is_near_its_active_size() -> None:
    dense_1b, mixture, dense_7b = (
        of(name, 1, "A100").energy_per_output_token_j
        for name in ("olmo-1b", "olmoe-1b-7b", "olmo-7b")
    )
    assert dense_1b < mixture < 1.55 * dense_1b
    assert mixture < 0.3 * dense_7b


def test_graphs_pay_where_the_gpu_waits_for_its_processor() -> None:
    def saved(gpu_name: str, **slower: object) -> float:
        quick = {"kind": slower.get("kind", "vllm")}
        slow = of("llama-3.1-8b", 1, gpu_name, **slower).energy_per_output_token_j
        return 1 - of("llama-3.1-8b", 1, gpu_name, **quick).energy_per_output_token_j / slow

    assert saved("A100", graphs=False) == pytest.approx(0.2547, abs=0.03)
    assert saved("A6000", graphs=False) < 0.05
    assert saved("A100", kind="transformers", compile=False) == pytest.approx(0.299, abs=0.03)
    assert saved("A6000", kind="transformers", compile=False) < 0.05


def test_a_decode_step_at_batch_1_takes_the_time_of_reading_the_weights() -> None:
    for name in ("llama-3.1-8b", "olmo-7b"):
        found = shape(name)
        read_s = 2 * found.parameters_read(1) / (3350e9 * BANDWIDTH_EFFICIENCY)
        assert of(name, 1, input_tokens=1).decode_step_s == pytest.approx(read_s, rel=0.08)


def test_work_of_a_pass_is_shared_between_gpus() -> None:
    found = shape("llama-3.1-8b")
    one = work(EngineSpec(), found, 8, 800, 800)
    four = work(EngineSpec(tensor_parallel=4), found, 8, 800, 800)
    assert four.flops == one.flops / 4
    assert four.read_bytes == pytest.approx(one.read_bytes / 4)
    assert four.exchanged_bytes == one.exchanged_bytes == 8 * 4096 * 2
    attention = 4 * 32 * 32 * 128 * 800
    assert one.flops == 2 * found.multiplied_parameters * 8 + attention


@given(
    name=st.sampled_from([name for name in known() if name != "tiny"]),
    gpu_name=st.sampled_from([each.name for each in GPUS]),
    batch=st.sampled_from(BATCHES),
    input_tokens=st.integers(1, 4096),
    output_tokens=st.integers(1, 512),
    split=st.sampled_from([(1, 1, 1), (2, 1, 1), (4, 1, 1), (2, 2, 1), (1, 1, 2)]),
    kind=st.sampled_from(["vllm", "transformers", "simulated"]),
)
def test_an_estimate_agrees_with_itself(
    *,
    name: str,
    gpu_name: str,
    batch: int,
    input_tokens: int,
    output_tokens: int,
    split: tuple[int, int, int],
    kind: str,
) -> None:
    asked = settings(
        name,
        batch,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        kind=kind,
        tensor_parallel=split[0],
        pipeline_parallel=split[1],
        data_parallel=split[2],
    )
    found = estimate(asked, shape(name), gpu(gpu_name))
    gpus = asked.engine.gpus
    assert 0 < gpus * gpu(gpu_name).active_w <= found.power_w <= gpus * gpu(gpu_name).tdp_w * 1.001
    steps_s = (output_tokens - 1) * found.decode_step_s
    assert found.latency_s == pytest.approx(found.prefill_s + steps_s)
    joules_per_s = found.energy_per_output_token_j * found.output_tokens_per_s
    assert joules_per_s == pytest.approx(found.power_w)
    assert found.requests_per_s * found.energy_per_request_j == pytest.approx(found.power_w)


def test_seconds_of_a_point_are_its_windows_and_what_surrounds_them() -> None:
    measure = MeasureSpec(warmup=WarmupSpec(min_batches=40), min_window_s=30.0, repeats=3)
    steady = settings(batch=8, measure=measure)
    batch_s = of("llama-3.1-8b", 8).latency_s
    assert batch_s < TEMPERATURE_S < 40 * batch_s
    around_s = 40 * batch_s + 2 * TEMPERATURE_S
    rounds_s = 3 * batch_s * -(-30 // batch_s)
    found = point_seconds(steady, shape("llama-3.1-8b"), gpu("H100"))
    assert found == pytest.approx(rounds_s + around_s + 3 * batch_s)
    short = replace(measure, min_window_s=batch_s / 2)
    found = point_seconds(replace(steady, measure=short), shape("llama-3.1-8b"), gpu("H100"))
    assert found == pytest.approx(3 * batch_s + around_s + 3 * batch_s)
    alone = replace(steady, workload=replace(steady.workload, batch_size=1))
    alone_s = of("llama-3.1-8b", 1).latency_s
    found = point_seconds(alone, shape("llama-3.1-8b"), gpu("H100"))
    assert found == pytest.approx(
        3 * alone_s * -(-30 // alone_s) + 40 * alone_s + 2 * TEMPERATURE_S
    )
    whole = settings(batch=8, measure=measure, batching="static")
    found = point_seconds(whole, shape("llama-3.1-8b"), gpu("H100"))
    assert found == pytest.approx(rounds_s + around_s)
    long = replace(measure, warmup=WarmupSpec(min_batches=1))
    found = point_seconds(replace(whole, measure=long), shape("llama-3.1-8b"), gpu("H100"))
    assert found == pytest.approx(rounds_s + 3 * TEMPERATURE_S)


def test_phases_add_windows_of_prefill_alone() -> None:
    measure = MeasureSpec(warmup=WarmupSpec(min_batches=4), min_window_s=30.0, repeats=3)
    both = settings(batch=8, measure=replace(measure, phases=True))
    plain = settings(batch=8, measure=measure)
    prefill = settings(batch=8, output_tokens=1, measure=replace(measure, window="whole"))
    seconds = [
        point_seconds(each, shape("llama-3.1-8b"), gpu("H100")) for each in (both, plain, prefill)
    ]
    assert seconds[0] == pytest.approx(seconds[1] + seconds[2])
    assert (plain.measure.windows, both.measure.windows) == (3, 6)


def test_a_point_takes_as_long_as_its_requests_need() -> None:
    few, many = (settings(batch=8, requests=n) for n in (8, 8000))
    rate = of("llama-3.1-8b", 8).requests_per_s
    seconds = [point_seconds(each, shape("llama-3.1-8b"), gpu("H100")) for each in (few, many)]
    assert seconds[0] == point_seconds(settings(batch=8), shape("llama-3.1-8b"), gpu("H100"))
    turn_s = of("llama-3.1-8b", 8).latency_s
    assert seconds[1] - seconds[0] == pytest.approx(3 * (8000 / rate - turn_s * -(-30 // turn_s)))


def test_energy_and_load_of_a_point_follow_from_its_time_and_size() -> None:
    asked = settings(batch=8)
    found = shape("llama-3.1-8b")
    spent_j = point_energy_j(asked, found, gpu("H100"))
    power_w = of("llama-3.1-8b", 8).power_w
    assert spent_j == pytest.approx(power_w * point_seconds(asked, found, gpu("H100")))
    small, large = (
        load_seconds(settings(name), shape(name), gpu("H100"))
        for name in ("llama-3.2-1b", "llama-3.1-70b")
    )
    assert 0 < small < large


STATED = {"kind": "stated", "acceptance": 0.6, "tokens": 4}


@pytest.mark.parametrize(
    ("name", "batch", "engine", "said"),
    [
        ("llama-3.1-8b", 8, {"max_batched_tokens": 4}, "4 is less than one token for each of 8"),
        (
            "llama-3.1-8b",
            8,
            {"max_batched_tokens": 512, "chunked_prefill": False},
            "512 with engine.chunked_prefill false",
        ),
        ("olmo-7b", 8, {"tensor_parallel": 32, "speculative": STATED}, "olmo-1b, the draft, has"),
        ("llama-3.1-8b", 1, {"speculative": {**STATED, "model": "tiny"}}, "vocabulary of 4096"),
        ("llama-3.1-8b", 8, {"max_batched_tokens": 512}, None),
        ("llama-3.1-8b", 8, {"chunked_prefill": False, "speculative": STATED}, None),
        ("llama-3.1-8b", 8, {"kind": "transformers"}, None),
    ],
)
def test_what_no_gpu_could_hold(
    name: str, batch: int, engine: dict[str, object], said: str | None
) -> None:
    asked = settings(name, batch, **engine)
    found = impossible(asked, shape(name), sizes(asked))
    assert found is None if said is None else said in str(found)


def test_a_plan_sees_speculation_stop_paying() -> None:
    changes = [
        of("llama-3.1-8b", batch, speculative=STATED).energy_per_output_token_j
        / of("llama-3.1-8b", batch).energy_per_output_token_j
        for batch in BATCHES
    ]
    assert changes == sorted(changes)
    assert changes[0] < 0.9
    assert changes[-1] > 1.0
    more = of("llama-3.1-8b", 1, speculative={**STATED, "acceptance": 0.9})
    assert more.latency_s < of("llama-3.1-8b", 1, speculative=STATED).latency_s


def test_a_draft_is_held_and_loaded_beside_its_model() -> None:
    asked = settings(speculative=STATED)
    both = memory(asked, shape("llama-3.1-8b"), gpu("H100"), sizes(asked))
    alone = memory(settings(), shape("llama-3.1-8b"), gpu("H100"), sizes(asked))
    draft = shape("llama-3.2-1b")
    assert both.weights_bytes - alone.weights_bytes == 2 * draft.parameters
    assert both.kv_cache_bytes - alone.kv_cache_bytes == 576 * draft.kv_bytes_per_token("bfloat16")
    loads = [load_seconds(each, shape("llama-3.1-8b"), gpu("H100")) for each in (asked, settings())]
    assert loads[0] > loads[1]


def test_whole_prompts_leave_passes_partly_empty() -> None:
    """Eight prompts of 60 tokens: one goes into a pass of 100, and parts of them fill five."""

    def prefill_s(*, chunked: bool) -> float:
        asked = {"input_tokens": 60, "max_batched_tokens": 100, "chunked_prefill": chunked}
        return of("llama-3.1-8b", 8, **asked).prefill_s

    # Passes so small take the time of reading the weights.
    assert prefill_s(chunked=False) / prefill_s(chunked=True) == pytest.approx(8 / 5, rel=0.02)
