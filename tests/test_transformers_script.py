"""The launch script of transformers: started as it stands, it runs what the record says of it."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sweeper.clocks import RealClock
from sweeper.engines import Request
from sweeper.engines.transformers_script import script
from sweeper.errors import EngineError
from sweeper.spec import EngineSpec, ModelSpec, Settings, Sizes, WorkloadSpec

pytestmark = pytest.mark.engine

INPUT, OUTPUT, BATCH = 16, 6, 3
SIZES = Sizes(max_model_len=INPUT + OUTPUT, max_batch_size=BATCH, batch_sizes=(1, BATCH))
DUMMY = ModelSpec(shape="tiny", weights="dummy")
LOOKUP = {"kind": "ngram", "tokens": 2, "prompt_lookup_min": 1}
PROBE = """
import json, os, torch, transformers
compiling = options.compile_config
largest = max(model.parameters(), key=torch.numel).float()
found = {
    "engine_version": transformers.__version__,
    "torch_version": torch.__version__,
    "model_type": model.config.model_type,
    "vocabulary": model.config.vocab_size,
    "max_positions": model.config.max_position_embeddings,
    "weight_bytes": sum(each.numel() * each.element_size() for each in model.parameters()),
    "device": str(model.device),
    "threads": torch.get_num_threads(),
    "float32_matmul_precision": torch.get_float32_matmul_precision(),
    "dtype": str(model.dtype).removeprefix("torch."),
    "attention": model.config._attn_implementation,
    "kv_cache": "static" if options.cache_implementation == "static" else "dynamic",
    "compile": compiling is not None,
    "training": model.training,
    "prompts": list(prompts.shape),
    "options": options.to_diff_dict() | {"compile_config": None},
    "compiling": compiling and {**compiling.to_dict(), "all": compiling._compile_all_devices},
    "std": largest.std().item(),
    "sum": sum(each.double().sum().item() for each in model.parameters()),
    "variable": os.environ.get("SWEEPER_PROBE_SEES"),
}
json.dump(found, open(os.environ["SWEEPER_PROBE"], "w"))
"""
"""Put behind the script, in the same process."""


def engine_of(model: ModelSpec = DUMMY, **spec: Any) -> Any:
    from sweeper.engines.transformers import TransformersEngine

    asked = {"kind": "transformers", "dtype": "float32", "compile": False, **spec}
    workload = WorkloadSpec(
        batching="static", batch_size=BATCH, input_tokens=INPUT, output_tokens=OUTPUT
    )
    settings = Settings(model=model, engine=EngineSpec(**asked), workload=workload)
    return TransformersEngine(settings, SIZES, (), RealClock())


def started(command: str, folder: Path) -> tuple[list[list[int]], dict[str, Any]]:
    """The tokens that a launch command prints, and what its process had loaded."""
    (folder / "probe.py").write_text(PROBE)
    python = folder / "python"
    python.write_text(f'#!/bin/sh\ncat - {folder}/probe.py | exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    seen = folder / "seen.json"
    bare = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run(
        ["bash", "-c", command],
        check=False,
        capture_output=True,
        text=True,
        env={
            **bare,
            "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
            "SWEEPER_PROBE": str(seen),
        },
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), json.loads(seen.read_text())


def measured(engine: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a record says the engine resolved to, and how it asks transformers for a batch."""
    resolved = dict(engine.load())
    asked: dict[str, Any] = {}

    def seen(prompts: Any, *, attention_mask: Any, generation_config: Any, **more: Any) -> Any:
        compiling = generation_config.compile_config
        asked.update(
            training=engine.model.training,
            prompts=list(prompts.shape),
            options=generation_config.to_diff_dict() | {"compile_config": None},
            compiling=compiling and {**compiling.to_dict(), "all": compiling._compile_all_devices},
            sum=sum(each.double().sum().item() for each in engine.model.parameters()),
        )
        assert attention_mask.all()
        assert more.keys() == {"streamer"}
        raise ValueError("seen enough")

    engine.model.generate = seen
    requests = [Request(place, [7 + place] * INPUT, OUTPUT) for place in range(BATCH)]
    with pytest.raises(EngineError, match="seen enough"):
        list(engine.generate(requests, Settings()))
    return resolved, asked


def check(engine: Any, folder: Path) -> None:
    """Start the launch command, and hold its process against the record."""
    resolved, asked = measured(engine)
    kind = resolved["weights"]["kind"]
    tokens, seen = started(engine.launch_command(), folder)
    assert [len(row) for row in tokens] == [OUTPUT] * BATCH
    if kind == "dummy":
        # The same distribution; the numbers are drawn in another order.
        assert seen["std"] == pytest.approx(resolved["weights"]["std_of_largest"], rel=0.02)
        del asked["sum"]
    same = {name: value for name, value in resolved.items() if name in seen and name != "options"}
    assert len(same) == 13
    assert {name: seen[name] for name in same} == same
    assert {name: seen[name] for name in asked} == asked


@pytest.fixture
def saved(tmp_path: Path) -> str:
    """A folder with weights, whose own end of sequence and sampling no script may use."""
    from transformers import GenerationConfig

    engine = engine_of()
    engine.load()
    engine.model.generation_config = GenerationConfig(
        eos_token_id=list(range(4000)), do_sample=True, temperature=9.0, max_new_tokens=2
    )
    engine.model.save_pretrained(tmp_path / "saved model")
    engine.close()
    return str(tmp_path / "saved model")


@pytest.mark.slow
def test_weights_of_a_folder_are_served_as_measured(saved: str, tmp_path: Path) -> None:
    engine = engine_of(ModelSpec(id=saved), options={"repetition_penalty": 1.5})
    check(engine, tmp_path)
    engine.close()


def test_drawn_weights_are_served_as_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    engine = engine_of(dtype="bfloat16", attention="eager", env={"SWEEPER_PROBE_SEES": "a b"})
    check(engine, tmp_path)
    assert json.loads((tmp_path / "seen.json").read_text())["variable"] == "a b"
    engine.close()


@pytest.mark.slow
def test_zeros_are_served_as_measured(tmp_path: Path) -> None:
    engine = engine_of(ModelSpec(shape="tiny", weights="dummy_zeros"))
    check(engine, tmp_path)
    engine.close()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
def test_compiled_decoding_is_served_as_measured(tmp_path: Path) -> None:
    engine = engine_of(compile=True)
    check(engine, tmp_path)
    engine.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("decoding", "speculative", "said"),
    [
        ({"kind": "beam", "width": 3}, None, "num_beams=3"),
        ({"kind": "top_p", "top_p": 0.5}, None, "torch.manual_seed(7)\noptions"),
        ({"kind": "greedy"}, {"kind": "draft", "model": "tiny", "tokens": 3}, "model=draft"),
        ({"kind": "greedy"}, LOOKUP, "prompt_lookup_num_tokens=2"),
    ],
)
def test_other_decoding_is_a_script_that_runs(
    decoding: dict[str, Any], speculative: dict[str, Any] | None, said: str, tmp_path: Path
) -> None:
    spec = EngineSpec(kind="transformers", dtype="float32", compile=False, speculative=speculative)
    workload = WorkloadSpec(
        batching="static",
        batch_size=1,
        input_tokens=INPUT,
        output_tokens=OUTPUT,
        decoding=decoding,
        seed=7,
    )
    command = script(
        Settings(model=DUMMY, engine=spec, workload=workload),
        replace(SIZES, max_batch_size=1, batch_sizes=(1,)),
        "cpu",
        1,
    )
    assert said in command
    tokens, seen = started(command, tmp_path)
    assert [len(row) for row in tokens] == [OUTPUT]
    assert seen["kv_cache"] == "dynamic"


@pytest.mark.slow
def test_continuous_batching_is_a_script_that_runs() -> None:
    folder = str(Path(sys.executable).parent)
    spec = EngineSpec(kind="transformers", dtype="float32", compile=False, max_batched_tokens=128)
    workload = WorkloadSpec(batch_size=BATCH, input_tokens=INPUT, output_tokens=OUTPUT)
    settings = Settings(model=DUMMY, engine=spec, workload=workload)
    done = subprocess.run(
        ["bash", "-c", script(settings, SIZES, "cpu", 1)],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": os.pathsep.join((folder, os.environ["PATH"]))},
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout.splitlines()[-1])
    assert [len(row) for row in rows] == [OUTPUT] * BATCH


def test_on_a_gpu_the_script_replays_graphs_there() -> None:
    settings = Settings(
        model=DUMMY,
        engine=EngineSpec(kind="transformers", dtype="bfloat16"),
        workload=WorkloadSpec(batching="static"),
    )
    text = script(settings, SIZES, "cuda", 4)
    compile(text.split("\n", 1)[1].removesuffix("\nEND"), "script", "exec")
    assert "CompileConfig(dynamic=False, mode='reduce-overhead')" in text
    assert "model.to('cuda')" in text
    assert "_compile_all_devices" not in text
