"""How long a simulated step takes and what it draws.

The work of a step is counted as in `roofline.py`; everything else is this module's own, so that
a plan's estimate and a simulated measurement differ as an estimate and a measurement do: other
efficiencies, a smooth change from bandwidth-bound to compute-bound, attention slower than its
bytes, time for scheduling, power that follows a logistic of the batch.
"""

import math

from sweeper.gpu_data import Gpu
from sweeper.roofline import flops_per_s, kv_bytes_per_token, launch_s, weight_width, work
from sweeper.shapes import Shape
from sweeper.spec import EngineSpec

BANDWIDTH_SHARE = 0.76
COMPUTE_SHARE = 0.55
SHARPNESS = 4.0
"""Exponent that joins the two bounds; infinite is their maximum."""
ATTENTION_FACTOR = 1.25
"""Time of reading the KV cache over that of reading as many bytes in order."""
LAYER_GAP_S = 14e-6
EXPERT_GAP_S = 9e-6
"""Beside it, a layer that routes to experts."""
ALL_REDUCE_HOP_S = 5e-6
LINK_SHARE = 0.7
SCHEDULE_S = 2.5e-4
SCHEDULE_REQUEST_S = 28e-6
"""The scheduler: each step, and each request in it."""
ONLINE_FACTOR = 2.0
"""Scheduling of the asynchronous engine over that of the offline one.

Online, a step is near what ML.ENERGY leaderboard v3 has for Llama-3.1-8B on H100 at batch 8 to 512.
"""
EAGER_FACTOR = 1.1

IDLE_SHARE = 0.10
CONTEXT_IDLE_SHARE = 0.17
"""Of TDP, where no idle power is published for a GPU type."""
LOAD_SHARE = 0.25
"""Of TDP, while weights are loaded."""
BUSY_SHARE = 0.66
BATCH_SHARE = 0.34
LOGISTIC_SLOPE = 1.1
LOGISTIC_MIDDLE = 5.5
"""Watts of a busy GPU over TDP: BUSY + BATCH / (1 + exp(-slope (log2 tokens - middle))).

Near fits to ML.ENERGY leaderboard v3 of Llama-3.1-8B on H100 (479 W, 215 W, 1.2, 5.5).
"""
CLOCK_EXPONENT = 2.0
"""Of the power above idle in the clock, voltage following it: an assumption, between 1 and 3."""
LEAST_CLOCK = 0.2
"""A power limit slows down computing, not memory: by so much at most."""
STALL_SHARE = 0.22
"""Of the busy share, what waiting GPUs save."""


class Physics:
    """Seconds and watts of one GPU of a launch, step by step.

    A draft's passes are not `scheduled`: they belong to a step of the model that they draft for.
    Under a `limit_w` the clock comes down until the power fits.
    """

    def __init__(
        self,
        engine: EngineSpec,
        shape: Shape,
        gpu: Gpu,
        *,
        scheduled: bool = True,
        limit_w: float | None = None,
    ) -> None:
        self._engine = engine
        self._shape = shape
        self._tdp_w = gpu.tdp_w
        self._limit_w = gpu.tdp_w if limit_w is None else limit_w
        self.idle_w = IDLE_SHARE * gpu.tdp_w if gpu.idle_w is None else gpu.idle_w
        self.context_idle_w = gpu.context_idle_w or CONTEXT_IDLE_SHARE * gpu.tdp_w
        self.load_w = LOAD_SHARE * gpu.tdp_w
        self._bandwidth = gpu.bandwidth_bytes_per_s * BANDWIDTH_SHARE
        self._flops = flops_per_s(engine, gpu) * COMPUTE_SHARE
        self._link = gpu.link_bytes_per_s * LINK_SHARE
        self._stages = engine.pipeline_parallel
        self._copies = engine.data_parallel
        attention = work(engine, shape, 0.0, 1.0)
        self._attend_flops = attention.flops
        self._kv_bytes = kv_bytes_per_token(engine, shape) * ATTENTION_FACTOR
        self._launch_s = launch_s(engine, shape) * EAGER_FACTOR
        gap_s = LAYER_GAP_S + (EXPERT_GAP_S if shape.experts > 1 else 0.0)
        hops = math.ceil(math.log2(engine.tensor_parallel))
        self._fixed_s = shape.layers * (gap_s + 2 * hops * ALL_REDUCE_HOP_S)
        self._schedule = (ONLINE_FACTOR if engine.mode == "online" else 1.0) * scheduled
        self._by_tokens: dict[int, tuple[float, float, float, float]] = {}

    def step(
        self, requests: int, tokens: int, attended: float, cached: float
    ) -> tuple[float, float]:
        """Seconds and watts of a pass over `tokens` new tokens of `requests` requests.

        `attended` sums what each new token looks back on, `cached` what is read of the KV cache.
        Copies of the model share the requests evenly.
        """
        if self._copies > 1:
            requests, tokens = -(-requests // self._copies), -(-tokens // self._copies)
            attended, cached = attended / self._copies, cached / self._copies
        seconds, watts = self._at_clock(1.0, requests, tokens, attended, cached)
        if watts <= self._limit_w:
            return seconds, watts
        room = max(self._limit_w - self.idle_w, 0.0) / (watts - self.idle_w)
        clock = max(room ** (1.0 / CLOCK_EXPONENT), LEAST_CLOCK)
        seconds, _ = self._at_clock(clock, requests, tokens, attended, cached)
        return seconds, self.idle_w + (watts - self.idle_w) * clock**CLOCK_EXPONENT

    def _at_clock(
        self, clock: float, requests: int, tokens: int, attended: float, cached: float
    ) -> tuple[float, float]:
        """As `step`, at a share of the full clock; watts are those of the full one."""
        known = self._by_tokens.get(tokens)
        if known is None:
            known = self._by_tokens[tokens] = self._of_tokens(tokens)
        read_bytes, flops, exchange_s, busy_w = known
        memory_s = (read_bytes + cached * self._kv_bytes) / self._bandwidth
        compute_s = (flops + attended * self._attend_flops) / self._flops / clock
        most_s = max(compute_s, memory_s)
        ratio = (memory_s + compute_s - most_s) / most_s
        work_s = self._stages * most_s * (1.0 + ratio**SHARPNESS) ** (1.0 / SHARPNESS)
        gpu_s = work_s + self._fixed_s + exchange_s
        gpu_s = max(gpu_s, self._launch_s)
        seconds = gpu_s + self._schedule * (SCHEDULE_S + requests * SCHEDULE_REQUEST_S)
        stalled = 1.0 - work_s / seconds / self._stages
        return seconds, busy_w - stalled * STALL_SHARE * BUSY_SHARE * self._tdp_w

    def load_s(self) -> float:
        """Seconds from a process to an engine that takes requests."""
        return 12.0 + 0.4 * self._shape.layers + self.read_s()

    def read_s(self) -> float:
        """Seconds to read the weights."""
        return self._shape.parameters * weight_width(self._engine) / 2.2e9

    def _of_tokens(self, tokens: int) -> tuple[float, float, float, float]:
        asked = work(self._engine, self._shape, tokens, 0.0)
        width = self._engine.tensor_parallel
        moved = 2.0 * (width - 1) / width * asked.exchanged_bytes
        exchange_s = 2.0 * self._shape.layers * moved / self._link
        logistic = 1.0 / (1.0 + math.exp(-LOGISTIC_SLOPE * (math.log2(tokens) - LOGISTIC_MIDDLE)))
        busy_w = self._tdp_w * (BUSY_SHARE + BATCH_SHARE * logistic)
        return asked.read_bytes, asked.flops, exchange_s, busy_w
