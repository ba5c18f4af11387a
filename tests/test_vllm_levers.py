"""vLLM's levers on processors: what they are asked for and what shows that they took effect."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from sweeper.clocks import RealClock
from sweeper.engines import Event, Request, engine_class, engine_traits
from sweeper.errors import WrongSetting
from sweeper.spec import EngineSpec, ModelSpec, Settings, Sizes, WorkloadSpec

pytestmark = [
    pytest.mark.engine,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
    pytest.mark.slow,
]
SIZES = Sizes(max_model_len=512, max_batch_size=4, batch_sizes=(1, 4))
INPUT, OUTPUT = 300, 5


def made(**spec: Any) -> Any:
    if engine_traits("vllm").needs_gpu:
        pytest.skip("made for processors")
    asked = {"dtype": "bfloat16", "compile": False, "graphs": False, **spec}
    settings = Settings(
        model=ModelSpec(shape="tiny", weights="dummy"),
        engine=EngineSpec(kind="vllm", **asked),
        workload=WorkloadSpec(batching="static", input_tokens=INPUT, output_tokens=OUTPUT),
    )
    return engine_class("vllm")(settings, SIZES, (), RealClock())


def requests(count: int, output_tokens: int = OUTPUT) -> list[Request]:
    return [Request(n, [7 + n, *range(2, INPUT + 1)], output_tokens) for n in range(count)]


def generated(events: list[Event]) -> int:
    return sum(event.tokens + (event.kind == "first_token") for event in events)


class TestTogether:
    """Two stages, a cache of bytes that is looked up, the asynchronous engine: one launch."""

    @pytest.fixture(scope="class")
    def engine(self) -> Iterator[Any]:
        engine = made(
            mode="online",
            pipeline_parallel=2,
            compile=True,
            prefix_caching=True,
            kv_cache_dtype="fp8",
            options={"seed": 3},
        )
        engine.load()
        yield engine
        engine.close()

    def test_it_took_what_was_asked(self, engine: Any) -> None:
        resolved = engine._resolved
        assert (resolved["mode"], resolved["pipeline_parallel"]) == ("online", 2)
        assert len(resolved["workers"]) == 2
        assert (resolved["kv_cache_dtype"], resolved["prefix_caching"]) == ("fp8", True)
        assert resolved["kv_cache_storage"] in {"uint8", "float8_e4m3fn"}
        assert (resolved["options_taken"], resolved["seed"]) == ({"seed": 3}, 3)

    def test_a_prompt_that_came_before_is_not_computed_again(self, engine: Any) -> None:
        assert generated(list(engine.generate(requests(4), engine._settings))) == 4 * OUTPUT
        before = engine.counts()
        assert generated(list(engine.generate(requests(4), engine._settings))) == 4 * OUTPUT
        after = engine.counts()
        # Of 300 tokens two blocks of 128 are whole.
        assert after["prefix_tokens_found"] - before["prefix_tokens_found"] == 4 * 256
        assert after["prefix_tokens_looked_up"] - before["prefix_tokens_looked_up"] == 4 * INPUT

    def test_chance_goes_on_in_a_closed_loop(self, engine: Any) -> None:
        workload = replace(engine._settings.workload, decoding={"kind": "top_p", "top_p": 0.9})
        settings = replace(engine._settings, workload=workload)
        assert generated(list(engine.serve(iter(requests(6)), 3, settings))) == 6 * OUTPUT
        assert engine.counts()["running_requests_max"] == 3


def test_what_vllm_took_otherwise_is_a_wrong_setting() -> None:
    """On processors it has one attention, schedules synchronously, and says so at most in a log."""
    engine = made(
        attention="FLASH_ATTN",
        graphs=True,
        options={"async_scheduling": True, "cudagraph_mode": "FULL"},
    )
    with pytest.raises(WrongSetting) as raised:
        engine.load()
    engine.close()
    said = str(raised.value).split("; ")
    assert "attention=FLASH_ATTN was asked, vLLM took CPU_ATTN" in said
    assert "async_scheduling=True was asked, vLLM took False" in said
    assert "graph_mode=FULL was asked, vLLM took NONE" in said
