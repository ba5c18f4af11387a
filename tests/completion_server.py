"""How vLLM's server of completions is started on processors, with a tiny random model."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sweeper.engines.vllm_command import architecture_file
from sweeper.spec import EngineSpec, ModelSpec, Settings, WorkloadSpec

LENGTH = 64
MOST = 8
VARIABLES = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
}


def settings_of(
    folder: Path,
    *,
    length: int = LENGTH,
    most: int = MOST,
    env: Mapping[str, str] | None = None,
    **workload: Any,
) -> Settings:
    """Of an endpoint that starts it; `folder` gets the model's configuration.

    It takes `most` requests at a time, of at most `length` tokens.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(architecture_file("tiny", "LlamaForCausalLM"))
    command = (
        f"{sys.executable} -m vllm.entrypoints.openai.api_server --model {{model}} "
        "--served-model-name tiny --host 127.0.0.1 --port {port} --dtype float32 "
        "--tensor-parallel-size {tensor_parallel} "
        f"--max-model-len {length} --max-num-seqs {most} --load-format dummy "
        "--skip-tokenizer-init --no-enable-prefix-caching --generation-config vllm "
        f"--kv-cache-memory-bytes {64 * 2**20} "
        f"--compilation-config '{json.dumps({'mode': 'NONE', 'cudagraph_mode': 'NONE'})}'"
    )
    return Settings(
        model=ModelSpec(id=str(folder)),
        engine=EngineSpec(
            kind="endpoint",
            options={"command": command, "ready_s": 200.0},
            env={**VARIABLES, **(env or {})},
        ),
        workload=WorkloadSpec(**workload),
    )
