"""What a person runs to have the same configuration with transformers alone (pure)."""

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from sweeper import shapes
from sweeper.decoding import draws
from sweeper.engines.transformers_decoding import decoding_options, strategy
from sweeper.engines.transformers_quantization import QUANTIZATIONS
from sweeper.engines.transformers_settings import (
    batching_options,
    generation_options,
    uses_graphs,
)
from sweeper.engines.transformers_speculation import (
    assistance,
    assisted_options,
    draft_of,
    draft_options,
)
from sweeper.spec import EngineSpec, ModelSpec, Settings, Sizes
from sweeper.speculation import Draft


def script(settings: Settings, sizes: Sizes, device: str, threads: int) -> str:
    """A shell command: one batch of `sizes.max_batch_size` random prompts, as in a measurement."""
    spec, workload = settings.engine, settings.workload
    served = workload.batching == "continuous"
    run = _continuous(settings, sizes, device) if served else _static(settings, sizes, device)
    variables = "".join(f"{name}={shlex.quote(value)} " for name, value in spec.env.items())
    return "\n".join(
        (
            f"{variables}python - <<'END'",
            "import torch",
            "from transformers import AutoConfig, AutoModelForCausalLM, CompileConfig",
            "from transformers import ContinuousBatchingConfig, GenerationConfig",
            f"torch.set_num_threads({threads})",
            *_model("model", settings.model, spec.dtype, spec.attention),
            f"model = model.to({device!r}).eval()",
            "model.generation_config = GenerationConfig()",
            *_quantized(spec),
            *_draft(settings, device),
            f"size = ({sizes.max_batch_size}, {workload.input_tokens})",
            f"prompts = torch.randint(model.config.vocab_size, size, device={device!r})",
            *run,
            "END",
        )
    )


def _quantized(spec: EngineSpec) -> Iterator[str]:
    if spec.quantization is None:
        return
    how = QUANTIZATIONS[spec.quantization]
    yield f"from torchao.quantization import {how}, quantize_"
    yield "head = model.get_output_embeddings()"
    yield "linear = lambda each, _: isinstance(each, torch.nn.Linear) and each is not head"
    yield f"quantize_(model, {how}(), linear)"


def _static(settings: Settings, sizes: Sizes, device: str) -> Iterator[str]:
    spec, workload, asked = settings.engine, settings.workload, strategy(settings)
    shown = _arguments(
        {
            **generation_options(spec, sizes, asked),
            **assisted_options(assistance(spec)),
            "max_new_tokens": workload.output_tokens,
            **spec.options,
        }
    )
    if draws(asked):
        yield f"torch.manual_seed({workload.seed})"
    if spec.compile:
        shown += ", compile_config=compiling"
        mode = "reduce-overhead" if uses_graphs(spec, device) else "default"
        yield f"compiling = CompileConfig(dynamic=False, mode={mode!r})"
        if device == "cpu":
            yield "compiling._compile_all_devices = True"
    yield f"options = GenerationConfig({shown})"
    yield "output = model.generate("
    yield "    prompts, attention_mask=torch.ones_like(prompts), generation_config=options,"
    if draft_of(settings) is not None:
        yield "    assistant_model=draft,"
    yield ")"
    yield "print(output[:, prompts.shape[1]:].tolist())"


def _continuous(settings: Settings, sizes: Sizes, device: str) -> Iterator[str]:
    spec, workload = settings.engine, settings.workload
    graphs = spec.graphs and device == "cuda"
    batching = batching_options(spec, sizes, graphs=graphs, seed=workload.seed)
    options = {
        **decoding_options(strategy(settings)),
        "eos_token_id": -1,
        "max_new_tokens": workload.output_tokens,
    }
    yield f"batching = ContinuousBatchingConfig({_arguments(batching)})"
    yield f"options = GenerationConfig({_arguments(options)})"
    yield "output = model.generate_batch("
    yield "    prompts.tolist(), generation_config=options, continuous_batching_config=batching,"
    yield ")"
    yield "print([each.generated_tokens for each in output.values()])"


def _arguments(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in options.items())


def _draft(settings: Settings, device: str) -> Iterator[str]:
    spec, draft = settings.engine, draft_of(settings)
    asked = assistance(spec)
    if draft is None or not isinstance(asked, Draft):
        return
    yield from _model("draft", draft, spec.dtype, spec.attention)
    yield f"draft = draft.to({device!r}).eval()"
    yield f"draft.generation_config = GenerationConfig({_arguments(draft_options(asked))})"


def _model(name: str, model: ModelSpec, dtype: str, attention: str | None) -> Iterator[str]:
    extra = "" if attention is None else f", attn_implementation={attention!r}"
    trust = ", trust_remote_code=True" if model.trust_remote_code else ""
    where = f"{model.id!r}, revision={model.revision!r}{trust}"
    if model.weights == "auto":
        yield f"{name} = AutoModelForCausalLM.from_pretrained({where}, dtype=torch.{dtype}{extra})"
        return
    if model.shape is not None:
        yield f"config = AutoConfig.for_model(**{shapes.architecture(model.shape)!r})"
    else:
        yield f"config = AutoConfig.from_pretrained({where})"
    yield "torch.manual_seed(0)"
    yield f"{name} = AutoModelForCausalLM.from_config(config, dtype=torch.{dtype}{extra}{trust})"
    if model.weights == "dummy_zeros":
        yield f"for weight in {name}.parameters():"
        yield "    weight.data.zero_()"
