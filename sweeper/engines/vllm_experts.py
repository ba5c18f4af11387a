"""Which experts tokens were routed to, where vLLM returns that (pure).

It does with `engine.options: {enable_return_routed_experts: true}`, on GPUs (with 0.32 by its
second runner). That copies the routing of every pass to the host, so it is not asked for by itself.
"""

from typing import Any

import numpy as np

BANDS = (
    ("experts_below_half_share", 0.0, 0.5),
    ("experts_half_to_even_share", 0.5, 1.0),
    ("experts_even_to_double_share", 1.0, 2.0),
    ("experts_above_double_share", 2.0, float("inf")),
)
"""Of all experts of all layers, the share that has so many tokens, over the mean of its layer."""


class Routing:
    """Tokens by layer and expert, of all requests that were done since load."""

    def __init__(self, experts: int) -> None:
        self._experts = experts
        self._tokens: Any = None

    def add(self, routed: Any) -> None:
        """Of one request, the experts chosen: by token, layer and place among those chosen."""
        chosen = np.asarray(routed)
        layers = chosen.shape[1]
        if self._tokens is None:
            self._tokens = np.zeros((layers, self._experts), dtype=np.int64)
        for layer in range(layers):
            counted = np.bincount(chosen[:, layer].ravel(), minlength=self._experts)
            self._tokens[layer] += counted

    def counts(self) -> dict[str, float]:
        """A histogram of the experts' loads, and the largest load; nothing where none was told."""
        if self._tokens is None or not self._tokens.any():
            return {}
        loads = self._tokens / self._tokens.mean(axis=1, keepdims=True)
        shares = {
            name: float(((loads >= least) & (loads < most)).mean()) for name, least, most in BANDS
        }
        return {
            "expert_choices": float(self._tokens.sum()),
            "experts_idle_share": float((self._tokens == 0).mean()),
            "expert_load_max_ratio": float(loads.max(axis=1).mean()),
            **shares,
        }
