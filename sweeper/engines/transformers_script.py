"""What a person runs to have the same configuration with transformers alone (pure)."""

import shlex
from collections.abc import Iterator

from sweeper import shapes
from sweeper.decoding import draws
from sweeper.engines.transformers_decoding import strategy
from sweeper.engines.transformers_settings import generation_options, uses_graphs
from sweeper.engines.transformers_speculation import (
    assistance,
    assisted_options,
    draft_of,
    draft_options,
)
from sweeper.spec import ModelSpec, Settings, Sizes
from sweeper.speculation import Draft


def script(settings: Settings, sizes: Sizes, device: str, threads: int) -> str:
    """A shell command: one batch of `sizes.max_batch_size` random prompts, as in a measurement."""
    spec, workload, asked = settings.engine, settings.workload, strategy(settings)
    options = {
        **generation_options(spec, sizes, asked),
        **assisted_options(assistance(spec)),
        "max_new_tokens": workload.output_tokens,
        **spec.options,
    }
    shown = ", ".join(f"{name}={value!r}" for name, value in options.items())
    compiling = ""
    if spec.compile:
        shown += ", compile_config=compiling"
        mode = "reduce-overhead" if uses_graphs(spec, device) else "default"
        compiling = f"compiling = CompileConfig(dynamic=False, mode={mode!r})\n"
        if device == "cpu":
            compiling += "compiling._compile_all_devices = True\n"
    drafting = list(_draft(settings, device))
    variables = "".join(f"{name}={shlex.quote(value)} " for name, value in spec.env.items())
    return "\n".join(
        (
            f"{variables}python - <<'END'",
            "import torch",
            "from transformers import AutoConfig, AutoModelForCausalLM, CompileConfig",
            "from transformers import GenerationConfig",
            f"torch.set_num_threads({threads})",
            *_model("model", settings.model, spec.dtype, spec.attention),
            f"model = model.to({device!r}).eval()",
            "model.generation_config = GenerationConfig()",
            *drafting,
            f"size = ({sizes.max_batch_size}, {workload.input_tokens})",
            f"prompts = torch.randint(model.config.vocab_size, size, device={device!r})",
            *([f"torch.manual_seed({workload.seed})"] if draws(asked) else []),
            f"{compiling}options = GenerationConfig({shown})",
            "output = model.generate(",
            "    prompts, attention_mask=torch.ones_like(prompts), generation_config=options,",
            *(["    assistant_model=draft,"] if drafting else []),
            ")",
            "print(output[:, prompts.shape[1]:].tolist())",
            "END",
        )
    )


def _draft(settings: Settings, device: str) -> Iterator[str]:
    spec, draft = settings.engine, draft_of(settings)
    asked = assistance(spec)
    if draft is None or not isinstance(asked, Draft):
        return
    yield from _model("draft", draft, spec.dtype, spec.attention)
    yield f"draft = draft.to({device!r}).eval()"
    options = ", ".join(f"{name}={value!r}" for name, value in draft_options(asked).items())
    yield f"draft.generation_config = GenerationConfig({options})"


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
