"""Quantized weights of the transformers engine, where torchao is installed."""

import importlib.util
import sys
from typing import Any

import pytest

from sweeper.clocks import RealClock
from sweeper.engines import Request
from sweeper.engines.transformers_quantization import quantization_fault
from sweeper.engines.transformers_script import script
from sweeper.engines.transformers_traits import TransformersTraits
from sweeper.errors import Infeasible
from sweeper.spec import EngineSpec, ModelSpec, Settings, Sizes, WorkloadSpec

SIZES = Sizes(max_model_len=24, max_batch_size=2, batch_sizes=(2,))
installed = pytest.mark.skipif(
    importlib.util.find_spec("torchao") is None, reason="torchao is not installed"
)


def asked(quantization: str | None) -> Settings:
    return Settings(
        model=ModelSpec(shape="tiny", weights="dummy"),
        engine=EngineSpec(
            kind="transformers", dtype="bfloat16", compile=False, quantization=quantization
        ),
        workload=WorkloadSpec(batching="static", batch_size=2),
    )


def test_without_the_library_it_is_said_before_a_gpu_is_held(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert quantization_fault(None) is None
    assert "only int8_weight_only, int8_dynamic" in str(quantization_fault("fp8"))
    # Python's own mark of a module that is not there.
    monkeypatch.setitem(sys.modules, "torchao", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    said = "engine.quantization int8_weight_only needs torchao"
    assert str(quantization_fault("int8_weight_only")).startswith(said)


@pytest.mark.engine
@pytest.mark.filterwarnings(  # of the library's own import
    "ignore::SyntaxWarning", "ignore::DeprecationWarning", "ignore::FutureWarning"
)
@installed
@pytest.mark.parametrize("name", ["int8_weight_only", "int8_dynamic"])
def test_linear_weights_take_half_of_their_bytes(name: str) -> None:
    from sweeper.engines.transformers import TransformersEngine

    assert TransformersTraits.preflight(asked(name)) is None
    logits: list[Any] = []
    facts = []
    for quantization in (None, name):
        engine = TransformersEngine(asked(quantization), SIZES, (), RealClock())
        facts.append(engine.load())
        requests = [Request(index, [7 * index + at for at in range(16)], 8) for index in range(2)]
        events = list(engine.generate(requests, asked(quantization)))
        assert sum(event.tokens + (event.kind == "first_token") for event in events) == 16
        import torch

        with torch.no_grad():
            logits.append(engine.model(torch.arange(16)[None]).logits.float())
        engine.close()
    plain, quantized = facts
    assert (plain["quantization"], plain["quantized"]) == (None, None)
    assert quantized["quantization"] == name
    # Four layers of seven; the output layer is the embedding's own.
    assert quantized["quantized"]["layers"] == 4 * 7
    assert quantized["quantized"]["library"] == "torchao"
    linear = plain["weight_bytes"] - 4096 * 256 * 2
    saved = plain["weight_bytes"] - quantized["weight_bytes"]
    assert 0.45 * linear < saved < 0.5 * linear
    assert not bool((logits[0] == logits[1]).all())
    assert logits[1] == pytest.approx(logits[0], abs=0.1 * float(logits[0].abs().max()))


def test_the_script_quantizes_the_same_layers() -> None:
    text = script(asked("int8_dynamic"), SIZES, "cpu", 1)
    compile(text.split("\n", 1)[1].removesuffix("\nEND"), "script", "exec")
    assert "quantize_(model, Int8DynamicActivationInt8WeightConfig(), linear)" in text


@pytest.mark.engine
def test_another_quantization_is_infeasible() -> None:
    from sweeper.engines.transformers import TransformersEngine

    with pytest.raises(Infeasible, match=r"engine\.quantization awq is not available"):
        TransformersEngine(asked("awq"), SIZES, (), RealClock()).load()
