"""Compiled decoding steps: how they are asked for, and that they ran."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from transformers import CompileConfig

from sweeper.errors import WrongSetting

POINT_LIMIT = 8
"""Graphs of one code beyond the launch's batch sizes, before torch gives up: its own default."""


def compile_config(graphs: bool) -> Any:
    """How decoding steps are compiled: every batch size for itself.

    torch's default would compile the second size it meets with variable shapes, so that a point's
    speed depended on which came before it.
    """
    options = CompileConfig(dynamic=False, mode="reduce-overhead" if graphs else "default")
    options._compile_all_devices = True
    return options


def allow(batch_sizes: int) -> None:
    """Let every batch size be compiled; beyond that torch fails instead of going on uncompiled."""
    torch._dynamo.config.recompile_limit = POINT_LIMIT + 2 * batch_sizes
    torch._dynamo.config.fail_on_recompile_limit_hit = True


def compiled_graphs() -> int:
    """Graphs that torch has captured for compilation in this process."""
    count: int = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    return count


def graph_breaks() -> int:
    """Places where torch left a compiled graph for Python, in this process."""
    return sum(torch._dynamo.utils.counters["graph_break"].values())


def cuda_graph_skips() -> int:
    """Compiled graphs that were to be replayed and are launched kernel by kernel instead."""
    count: int = torch._dynamo.utils.counters["inductor"]["cudagraph_skips"]
    return count


class CompiledSteps:
    """Counts the decoding steps that ran as compiled, from `watch` on."""

    def __init__(self) -> None:
        self.steps = 0
        self._before = self._counted()

    def watch(self, model: Any) -> None:
        """Look at what `generate` gets for its steps; a model may give what is not compiled."""
        self._before = self._counted()
        get: Callable[..., Any] = model.get_compiled_call

        def get_compiled_call(config: Any) -> Callable[..., Any]:
            call: Callable[..., Any] = get(config)
            if call is not getattr(model, "_compiled_call", None):
                return call

            def counted(*args: Any, **kwargs: Any) -> Any:
                self.steps += 1
                return call(*args, **kwargs)

            return counted

        model.get_compiled_call = get_compiled_call

    def check(self, done: int, before: int, *, graphs: bool) -> None:
        """A batch has had `done` decoding steps after its prompts; `before` it `steps` were that.

        Raises:
            WrongSetting: some of them were not compiled, or not replayed as CUDA graphs.
        """
        compiled = self.steps - before
        if compiled != done or (done and not self.counts()["compiled_graphs"]):
            raise WrongSetting(
                f"engine.compile was asked, transformers ran {compiled} of {done} decoding steps "
                "compiled"
            )
        skipped = self._counted()["cuda_graph_skips"] - self._before["cuda_graph_skips"]
        if graphs and skipped:
            raise WrongSetting(
                f"engine.graphs was asked, torch launched {skipped} compiled graphs without"
            )

    def counts(self) -> Mapping[str, float]:
        """Steps that ran compiled, and what torch made of the model, since `watch`."""
        now = self._counted()
        return {
            "compiled_steps": float(self.steps),
            "compiled_graphs": float(now["graphs"] - self._before["graphs"]),
            "graph_breaks": float(now["breaks"] - self._before["breaks"]),
        }

    @staticmethod
    def _counted() -> Mapping[str, int]:
        return {
            "graphs": compiled_graphs(),
            "breaks": graph_breaks(),
            "cuda_graph_skips": cuda_graph_skips(),
        }
