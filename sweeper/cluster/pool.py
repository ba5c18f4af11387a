"""What is held where, and what may start next: pure accounting, time passed in.

Order is GPU-seconds, largest first, with backfill: whatever fits may start past one that does not.
Waiting earns GPU-seconds as fast as the whole cluster makes them, so later arrivals cannot stay
ahead for ever, and who was passed over for longer than the patience gets a node reserved: later
starts may then use only what the reservation leaves. The order was chosen by simulation: its worst
makespan was 1.12 times the lower bound against 1.59 for widest-first.
"""

import math
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass

PATIENCE_S = 600.0
"""How long a request is passed over before a node is kept for it."""


@dataclass(frozen=True, kw_only=True)
class Node:
    """A machine of the cluster.

    `devices` are what a trial can hold one of: its GPUs by index, or one pseudo-device that stands
    for a whole CPU-only node. `cpus` are those that nobody else held when the node was listed.
    """

    id: str
    host: str
    devices: tuple[str, ...]
    gpus: int
    cpus: float
    gpu_type: str | None = None


@dataclass(frozen=True, kw_only=True)
class Request:
    """A lease that is asked for.

    `cpus` of `None` is a fair share. `avoided` nodes are used only when no other could hold it.
    A `whole_node` is held entirely, whatever the width.
    """

    id: str
    width: int
    expected_s: float
    cpus: float | None = None
    avoided: frozenset[str] = frozenset()
    whole_node: bool = False


@dataclass(frozen=True, kw_only=True)
class Place:
    """A lease that was given: `width` devices and `cpus` of one node."""

    request: Request
    node: Node
    width: int
    cpus: float
    since_s: float

    @property
    def until_s(self) -> float:
        """When it is expected to end."""
        return self.since_s + self.request.expected_s


@dataclass(frozen=True, slots=True)
class Room:
    """Devices and CPUs, held or free."""

    devices: float
    cpus: float

    def __sub__(self, other: "Room") -> "Room":
        return Room(self.devices - other.devices, self.cpus - other.cpus)

    def holds(self, other: "Room") -> bool:
        """Whether `other` fits, up to the rounding of fractions of a CPU."""
        return self.devices >= other.devices and self.cpus >= other.cpus - 1e-6


def need(request: Request, node: Node) -> Room:
    """What the request would hold of this node.

    A fair share is two CPUs and two more per GPU, unless that is more than the GPUs' part of the
    node; a CPU-only node is taken whole, and so is one that nobody else may work on.
    """
    total = len(node.devices)
    width = max(total, request.width) if request.whole_node else request.width
    if request.whole_node:
        return Room(width, max(node.cpus, request.cpus or 0.0))
    if request.cpus is not None:
        return Room(width, request.cpus)
    if node.gpus == 0:
        return Room(width, node.cpus)
    share = min(2.0 + 2.0 * width, node.cpus * width / total)
    return Room(width, math.floor(share) if share >= 1 else math.floor(share * 10) / 10)


@dataclass(frozen=True, kw_only=True)
class _Reservation:
    request: Request
    node: Node
    later: frozenset[str] = frozenset()


class Pool:
    """The devices of a cluster, who waits for them and who holds them.

    `max_gpus` bounds what is held at once.
    """

    def __init__(
        self,
        nodes: Sequence[Node],
        *,
        max_gpus: int | None = None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self.nodes = {node.id: node for node in nodes}
        self.max_gpus = math.inf if max_gpus is None else max_gpus
        self.patience_s = patience_s
        self.held: dict[str, Place] = {}
        self._waiting: dict[str, tuple[Request, float]] = {}
        self._passed_s: dict[str, float] = {}
        self._reservation: _Reservation | None = None

    @property
    def idle(self) -> int:
        """Devices of living nodes that nobody of ours holds, as far as `max_gpus` lets us."""
        total = sum(len(node.devices) for node in self.nodes.values())
        return int(min(total, self.max_gpus) - self._used(None, self.held).devices)

    def submit(self, request: Request, now_s: float) -> None:
        """Let a request wait from now on."""
        self._waiting[request.id] = (request, now_s)

    def withdraw(self, request_id: str) -> None:
        """Forget a waiting request."""
        self._waiting.pop(request_id, None)
        self._passed_s.pop(request_id, None)
        if self._reservation is not None and self._reservation.request.id == request_id:
            self._reservation = None

    def release(self, request_id: str) -> None:
        """Give back what a request holds."""
        self.held.pop(request_id, None)

    def update(self, nodes: Sequence[Node]) -> None:
        """The nodes that live now; leases on a dead one are held until released."""
        self.nodes = {node.id: node for node in nodes}
        if self._reservation is not None and self._reservation.node.id not in self.nodes:
            self._reservation = None

    def homeless(self) -> list[str]:
        """Waiting requests that no living node could hold, even an empty one."""
        return [name for name, (request, _) in self._waiting.items() if not self._able(request)]

    def admit(self, now_s: float, free: Mapping[str, Room] | None = None) -> Place | None:
        """The next lease to start now, already held when this returns; `None` when none can.

        `free` is, per node, what other people leave to us (what we hold included); a node that is
        missing from it has nothing to give.
        """
        left = {node.id: self._left(node, free) for node in self.nodes.values()}
        able: dict[Hashable, list[Node]] = {}
        fitting: dict[Hashable, list[Node]] = {}
        passed: list[str] = []
        for request in self._order(now_s):
            shape = (request.width, request.cpus, request.whole_node, request.avoided)
            if shape not in able:
                able[shape] = self._able(request)
            if not able[shape]:
                continue
            kept = self._reservation is not None and self._reservation.request.id == request.id
            if kept or shape not in fitting:
                fitting[shape] = [
                    node for node in able[shape] if self._fits(request, node, left[node.id])
                ]
            if fitting[shape]:
                node = min(fitting[shape], key=lambda node: (left[node.id].devices, node.id))
                for name in passed:
                    self._passed_s.setdefault(name, now_s)
                return self._hold(request, node, now_s)
            passed.append(request.id)
            waited_s = now_s - self._passed_s.get(request.id, now_s)
            if self._reservation is None and waited_s > self.patience_s:
                node = self._soonest(request, able[shape])
                self._reservation = _Reservation(request=request, node=node)
                fitting.clear()
        return None

    def _order(self, now_s: float) -> list[Request]:
        rate = sum(len(node.devices) for node in self.nodes.values())

        def rank(waiting: tuple[Request, float]) -> tuple[float, int]:
            request, since_s = waiting
            return request.width * request.expected_s + rate * (now_s - since_s), request.width

        ordered = sorted(self._waiting.values(), key=rank, reverse=True)
        return [request for request, _ in ordered]

    def _able(self, request: Request) -> list[Node]:
        able = [
            node
            for node in self.nodes.values()
            if Room(len(node.devices), node.cpus).holds(need(request, node))
        ]
        return [node for node in able if node.id not in request.avoided] or able

    def _used(self, node: Node | None, among: Collection[str]) -> Room:
        found = [self.held[name] for name in among if name in self.held]
        places = [place for place in found if node is None or place.node.id == node.id]
        return Room(sum(place.width for place in places), sum(place.cpus for place in places))

    def _left(self, node: Node, free: Mapping[str, Room] | None) -> Room:
        given = Room(len(node.devices), node.cpus)
        if free is not None:
            theirs = free.get(node.id, Room(0, 0))
            given = Room(min(given.devices, theirs.devices), min(given.cpus, theirs.cpus))
        return given - self._used(node, self.held)

    def _fits(self, request: Request, node: Node, left: Room) -> bool:
        asked = need(request, node)
        if not left.holds(asked):
            return False
        budget = self.max_gpus - self._used(None, self.held).devices
        if asked.devices > budget:
            return False
        kept = self._reservation
        if kept is None or kept.request.id == request.id:
            return True
        reserved = need(kept.request, kept.node)
        later = self._used(None, kept.later).devices
        if asked.devices > self.max_gpus - reserved.devices - later:
            return False
        if node.id != kept.node.id:
            return True
        whole = Room(len(node.devices), node.cpus)
        return (whole - reserved - self._used(node, kept.later)).holds(asked)

    def _soonest(self, request: Request, able: Sequence[Node]) -> Node:
        return min(able, key=lambda node: (self._ready_s(request, node), node.id))

    def _ready_s(self, request: Request, node: Node) -> float:
        """When enough of the node is expected to be free."""
        asked = need(request, node)
        left = self._left(node, None)
        ready_s = -math.inf
        places = [place for place in self.held.values() if place.node.id == node.id]
        for place in sorted(places, key=lambda place: place.until_s):
            if left.holds(asked):
                break
            left = Room(left.devices + place.width, left.cpus + place.cpus)
            ready_s = place.until_s
        return ready_s

    def _hold(self, request: Request, node: Node, now_s: float) -> Place:
        asked = need(request, node)
        place = Place(
            request=request,
            node=node,
            width=int(asked.devices),
            cpus=asked.cpus,
            since_s=now_s,
        )
        self.withdraw(request.id)
        self.held[request.id] = place
        kept = self._reservation
        if kept is not None:
            self._reservation = _Reservation(
                request=kept.request, node=kept.node, later=kept.later | {request.id}
            )
        return place
