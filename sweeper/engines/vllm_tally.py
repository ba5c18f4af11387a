"""What vLLM tells of its scheduler at every step, counted (pure).

Totals are since load. How many requests ran is told of the work that was done last, such as one
point of a launch: all its steps, those of its warm-up among them.
"""

from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

GRAPHS: Mapping[str, str] = {
    "FULL": "steps_in_full_graphs",
    "PIECEWISE": "steps_in_piecewise_graphs",
    "NONE": "steps_without_graphs",
}
"""Names of counts by what `CUDAGraphStat.runtime_mode` says of a step."""


@dataclass
class Batches:
    """How many requests the scheduler ran at a time, over steps that gave anything."""

    steps: int = 0
    running: int = 0
    most: int = 0

    def add(self, running: int) -> None:
        """A step in which so many ran."""
        self.steps += 1
        self.running += running
        self.most = max(self.most, running)


@dataclass
class Tally:
    """One of vLLM's statistics loggers: it only counts."""

    totals: Counter[str] = field(default_factory=Counter)
    cache_used_peak: float = 0.0
    batches: dict[Hashable, Batches] = field(default_factory=dict)
    now: Batches = field(default_factory=Batches)

    def begin(self, work: Hashable) -> None:
        """What runs from now on is `work`, whose earlier steps count as well."""
        self.now = self.batches.setdefault(work, Batches())

    def record(
        self,
        scheduler_stats: Any,
        iteration_stats: Any,
        mm_cache_stats: Any = None,
        engine_idx: int = 0,
    ) -> None:
        """Called at every step."""
        ended = 0
        if iteration_stats is not None:
            ended = len(iteration_stats.finished_requests)
            self.totals["preemptions"] += iteration_stats.num_preempted_reqs
        if scheduler_stats is None:
            return
        self.cache_used_peak = max(self.cache_used_peak, scheduler_stats.kv_cache_usage)
        # The scheduler counts after a step, when those that it ended have left.
        running = scheduler_stats.num_running_reqs + ended
        if running:
            self.now.add(running)
        prefixes, drafts = scheduler_stats.prefix_cache_stats, scheduler_stats.spec_decoding_stats
        if prefixes is not None:
            self.totals["prefix_tokens_looked_up"] += prefixes.queries
            self.totals["prefix_tokens_found"] += prefixes.hits
        if drafts is not None:
            self.totals["draft_tokens_proposed"] += drafts.num_draft_tokens
            self.totals["draft_tokens_accepted"] += drafts.num_accepted_tokens
        graph = scheduler_stats.cudagraph_stats
        if graph is not None:
            self.totals[GRAPHS[graph.runtime_mode]] += 1
            self.totals["graph_padding_tokens"] += graph.num_paddings

    def counts(self, *, drafts: bool, prefixes: bool) -> dict[str, float]:
        """Since load, and of the work that was begun last; what is not known is absent.

        Graphs are known where vLLM told of any: its second runner does not in 0.26. `drafts` and
        `prefixes` say whether there can be any.
        """
        found = {
            "preemptions": float(self.totals["preemptions"]),
            "kv_cache_used_peak": self.cache_used_peak,
        }
        if drafts:
            found |= self._named("draft_tokens_proposed", "draft_tokens_accepted")
        if prefixes:
            found |= self._named("prefix_tokens_looked_up", "prefix_tokens_found")
        if any(name in self.totals for name in GRAPHS.values()):
            found |= self._named(*GRAPHS.values(), "graph_padding_tokens")
        if self.now.steps:
            found["scheduler_steps"] = float(self.now.steps)
            found["running_requests_mean"] = self.now.running / self.now.steps
            found["running_requests_max"] = float(self.now.most)
        return found

    def log_engine_initialized(self) -> None:
        """Called once."""

    def log(self) -> None:
        """Called now and then."""

    def record_sleep_state(self, is_awake: int, level: int) -> None:
        """Called when the scheduler rests and wakes up."""

    def _named(self, *names: str) -> dict[str, float]:
        return {name: float(self.totals[name]) for name in names}
