"""The weights that are drawn inside vLLM's workers."""

from typing import Any

import pytest

pytestmark = [
    pytest.mark.engine,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]


def test_weights_are_drawn_by_name_and_part() -> None:
    import torch
    from vllm.model_executor.layers.linear import ReplicatedLinear

    from sweeper.engines.vllm_worker import draw

    class Router(ReplicatedLinear):  # type: ignore[misc]
        def __init__(self) -> None:
            torch.nn.Module.__init__(self)
            self.weight = torch.nn.Parameter(torch.empty(8, 64))

    def model() -> Any:
        made = torch.nn.Module()
        made.embedding = torch.nn.Embedding(1000, 64)
        made.linear = torch.nn.Linear(64, 64)
        made.norm = torch.nn.LayerNorm(64)
        made.router = Router()
        made.head = torch.nn.Linear(64, 1000, bias=False)
        made.head.weight = made.embedding.weight
        return made

    first, again, other = model(), model(), model()
    facts = [
        draw(each, std=0.05, zeros=False, rank=rank)
        for each, rank in ((first, 0), (again, 0), (other, 1))
    ]
    assert facts[0] == facts[1]
    assert facts[0]["std_of_largest"] == pytest.approx(0.05, rel=0.02)
    assert (facts[0]["norms"], facts[0]["biases"]) == (1.0, 0.0)
    assert torch.equal(first.linear.weight, again.linear.weight)
    assert not torch.equal(first.linear.weight, other.linear.weight)
    assert torch.equal(first.router.weight, other.router.weight)
    assert first.head.weight is first.embedding.weight
    zeros = draw(other, std=0.05, zeros=True, rank=0)
    assert not any(torch.any(weight) for weight in other.parameters())
    assert (zeros["std_of_largest"], zeros["norms"]) == (0.0, 0.0)
