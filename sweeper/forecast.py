"""What a study will come to on a given pool, before any GPU is held (pure).

Everything here is the roofline's expectation and says so; nothing of it enters a record.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sweeper.cluster.pool import Node, Request
from sweeper.cluster.replay import makespan_s
from sweeper.engines.simulated_options import stood_for
from sweeper.errors import StudyError
from sweeper.expected_finals import expected_blocks
from sweeper.feasibility import impossible
from sweeper.gpu_data import Gpu, gpu
from sweeper.plan import NOMINAL_LOAD_S as UNKNOWN_LOAD_S
from sweeper.plan import Cost, Plan, expected_s, min_requests, nominal_point_s, plan
from sweeper.roofline import estimate, load_seconds, memory, point_energy_j, point_seconds
from sweeper.shapes import Shape, shape_of_model
from sweeper.spec import Point, Settings, Sizes, Study, Trial
from sweeper.speculation import draft_shape

MANY_CPUS = 1e6
"""More than anybody asks for: a pool says nothing of processors."""
_NODES = re.compile(r"(\d+)x(\d+):([\w .-]+)")


@dataclass(frozen=True, kw_only=True)
class PoolNode:
    """One node of a pool: how many GPUs, of which type."""

    gpus: int
    gpu: Gpu


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What a study comes to on a pool; seconds, joules and fits are expectations.

    `unfit` says of each point that cannot run there why; `wide` of each trial that no node holds.
    `blocks` is what the blocks of its finalists take of the whole, and is `None` without any.
    """

    plan: Plan
    nodes: tuple[PoolNode, ...]
    unfit: dict[str, str]
    wide: dict[str, str]
    gpu_seconds: float
    energy_j: float
    makespan_s: float
    blocks: "Part | None" = None


@dataclass(frozen=True, kw_only=True)
class Part:
    """What trials come to that begin together."""

    trials: int
    gpu_seconds: float
    energy_j: float
    makespan_s: float


def parse_pool(text: str) -> tuple[PoolNode, ...]:
    """The nodes that `2x8:H200,1x4:A6000` names: 2 nodes of 8 H200, 1 node of 4 A6000.

    Raises:
        StudyError: it is written otherwise, or names an unknown GPU.
    """
    nodes: list[PoolNode] = []
    for part in text.split(","):
        match = _NODES.fullmatch(part.strip())
        if match is None or not int(match[1]) or not int(match[2]):
            raise StudyError(
                f"{part.strip()!r} is no pool: write NODESxGPUS:TYPE, such as 2x8:H200,1x4:A6000"
            )
        nodes += [PoolNode(gpus=int(match[2]), gpu=gpu(match[3].strip()))] * int(match[1])
    return tuple(nodes)


def pool_text(nodes: Sequence[PoolNode]) -> str:
    """Nodes as `parse_pool` reads them."""
    alike = Counter((node.gpus, node.gpu.name) for node in nodes)
    return ",".join(f"{count}x{gpus}:{name}" for (gpus, name), count in alike.items())


def cost_on(card: Gpu, needed: int = 1) -> Cost:
    """What launches and points take on a GPU, where the model's shape is known.

    A point has at least `needed` requests (see `plan.min_requests`).
    """

    def load_s(settings: Settings) -> float:
        settings, shape = stood_for(settings), _shape(settings)
        return UNKNOWN_LOAD_S if shape is None else load_seconds(settings, shape, card)

    def point_s(settings: Settings) -> float:
        settings, shape = stood_for(settings), _shape(settings)
        if shape is None:
            return nominal_point_s(settings)
        return point_seconds(settings, shape, card, needed)

    return Cost(load_s=load_s, point_s=point_s)


def forecast(study: Study, nodes: Sequence[PoolNode]) -> Forecast:
    """Points, launches and trials of a study on `nodes`, what cannot fit, time and energy.

    Raises:
        StudyError: the pool mixes GPU types and the study does not say which, or the study has no
            node of the type it asks for.
    """
    nodes = eligible(study, nodes)
    card = nodes[0].gpu
    cost = cost_on(card, min_requests(study))
    most = study.resources.max_gpus
    total = sum(node.gpus for node in nodes)
    whole = plan(study, devices=min(total, most or total), cost=cost)
    unfit = {
        point.id: reason for point in whole.points if (reason := _unfit(point, card)) is not None
    }
    widest = max(node.gpus for node in nodes)
    wide = {
        trial.id: f"{trial.gpus} GPUs in one lease, the widest node has {widest}"
        for trial in whole.trials
        if trial.gpus > widest
    }
    trials = [
        fitting
        for trial in whole.trials
        if trial.id not in wide and (fitting := _without(trial, unfit, cost)) is not None
    ]
    fitting_points = [
        point
        for point in whole.points
        if point.id not in unfit and point.settings.engine.gpus <= widest
    ]
    first = _part(trials, card, nodes, study)
    final = _blocks(study, fitting_points, card, cost)
    then = _part(final, card, nodes, study)
    return Forecast(
        plan=whole,
        nodes=tuple(nodes),
        unfit=unfit,
        wide=wide,
        gpu_seconds=first.gpu_seconds + then.gpu_seconds,
        energy_j=first.energy_j + then.energy_j,
        # Blocks begin when all else is measured.
        makespan_s=first.makespan_s + then.makespan_s,
        blocks=then if final else None,
    )


def _blocks(study: Study, points: Sequence[Point], card: Gpu, cost: Cost) -> tuple[Trial, ...]:
    if not study.settings.measure.finalists.blocks:
        return ()
    estimates = {}
    for point in points:
        settings = stood_for(point.settings)
        if (shape := _shape(settings)) is not None:
            estimates[point.id] = estimate(settings, shape, card)
    return expected_blocks(study, points, estimates, cost)


def _part(trials: Sequence[Trial], card: Gpu, nodes: Sequence[PoolNode], study: Study) -> Part:
    return Part(
        trials=len(trials),
        gpu_seconds=sum(_held(trial, nodes, study) * trial.expected_s for trial in trials),
        energy_j=sum(_trial_energy_j(trial, card) for trial in trials),
        makespan_s=_makespan_s(trials, nodes, study),
    )


def pool_nodes(nodes: Sequence[PoolNode]) -> tuple[Node, ...]:
    """The nodes of a pool as admission sees them, with as many CPUs as anybody asks for."""
    return tuple(
        Node(
            id=f"node-{number}",
            host=f"node-{number}",
            devices=tuple(str(index) for index in range(node.gpus)),
            gpus=node.gpus,
            cpus=MANY_CPUS,
            gpu_type=node.gpu.name,
        )
        for number, node in enumerate(nodes)
    )


def _held(trial: Trial, nodes: Sequence[PoolNode], study: Study) -> int:
    """The GPUs of a trial's lease: those of the smallest node that does, where it takes all."""
    if not study.resources.exclusive_node:
        return trial.gpus
    return min(node.gpus for node in nodes if node.gpus >= trial.gpus)


def _makespan_s(trials: Sequence[Trial], nodes: Sequence[PoolNode], study: Study) -> float:
    requests = [
        Request(
            id=trial.id,
            width=trial.gpus,
            expected_s=trial.expected_s,
            whole_node=study.resources.exclusive_node,
        )
        for trial in trials
    ]
    lengths_s = {trial.id: trial.expected_s for trial in trials}
    return makespan_s(requests, lengths_s, pool_nodes(nodes), study.resources.max_gpus)


def _shape(settings: Settings) -> Shape | None:
    """The shape of a point's model, where it and its draft's are known without any download."""
    try:
        draft_shape(settings)
        return shape_of_model(settings.model)
    except StudyError:
        return None


def eligible(study: Study, nodes: Sequence[PoolNode]) -> Sequence[PoolNode]:
    """The nodes of a pool that a study may use: all of one GPU type.

    Raises:
        StudyError: the pool has several types and the study does not say which, or not that one.
    """
    wanted = study.resources.accelerator
    if wanted is not None:
        chosen = [node for node in nodes if node.gpu == gpu(wanted)]
        if not chosen:
            raise StudyError(f"resources.accelerator: the pool has no {wanted}")
        return chosen
    names = sorted({node.gpu.name for node in nodes})
    if len(names) > 1:
        raise StudyError(
            f"the pool mixes {' and '.join(names)}, whose results do not compare: say which with "
            f"resources.accelerator={names[0]}"
        )
    return nodes


def _unfit(point: Point, card: Gpu) -> str | None:
    settings, shape = stood_for(point.settings), _shape(point.settings)
    if shape is None:
        return None
    workload = settings.workload
    sizes = Sizes(
        max_model_len=workload.input_tokens + workload.output_tokens,
        max_batch_size=workload.batch_size,
        batch_sizes=(workload.batch_size,),
    )
    if (reason := impossible(settings, shape, sizes)) is not None:
        return reason
    needed = memory(settings, shape, card, sizes)
    return None if needed.fits else needed.reason


def _without(trial: Trial, unfit: dict[str, str], cost: Cost) -> Trial | None:
    launches = tuple(
        replace(launch, points=left)
        for launch in trial.launches
        if (left := tuple(point for point in launch.points if point.id not in unfit))
    )
    if not launches:
        return None
    return replace(trial, launches=launches, expected_s=expected_s(launches, cost))


def _trial_energy_j(trial: Trial, card: Gpu) -> float:
    """Joules of the windows and warm-ups; loading is not counted."""
    total = 0.0
    for launch in trial.launches:
        for point in launch.points:
            settings = stood_for(point.settings)
            if (shape := _shape(settings)) is not None:
                total += point_energy_j(settings, shape, card, launch.min_requests)
    return total
