import pytest

from sweeper.clocks import RealClock, ScaledClock, VirtualClock, clock_for
from sweeper.engines.simulated import SimulatedEngine
from sweeper.errors import StudyError
from sweeper.spec import EngineSpec, Settings
from tests.simulated import SIZES, asked, requests, total_j


@pytest.mark.parametrize(
    ("meter", "options", "kind"),
    [
        ("simulated", {}, VirtualClock),
        ("auto", {}, VirtualClock),
        ("simulated", {"time_scale": 0.01}, ScaledClock),
        ("simulated", {"time_scale": 1}, RealClock),
        ("nvml", {}, RealClock),
        ("nvml", {"time_scale": 1}, RealClock),
        ("codecarbon", {}, RealClock),
    ],
)
def test_the_clock_of_a_launch(meter: str, options: dict[str, object], kind: type) -> None:
    assert type(clock_for(asked(meter=meter, **options))) is kind


def test_the_clock_of_a_real_engine_is_real() -> None:
    assert type(clock_for(Settings(engine=EngineSpec(kind="vllm")))) is RealClock


@pytest.mark.parametrize("scale", [0, 0.5])
def test_a_meter_of_hardware_needs_real_time(scale: float) -> None:
    with pytest.raises(StudyError, match=r"time_scale: .* with meter nvml"):
        clock_for(asked(meter="nvml", time_scale=scale))


@pytest.mark.parametrize("clock", [RealClock(), VirtualClock(), ScaledClock(0.01)])
def test_a_clock_goes_forward_by_at_least_what_was_slept(
    clock: RealClock | VirtualClock | ScaledClock,
) -> None:
    before = clock.now()
    clock.sleep(0.02)
    clock.sleep(-1.0)
    assert clock.now() >= before + 0.02


def test_a_scaled_clock_takes_its_share_of_real_time() -> None:
    real, scaled = RealClock(), ScaledClock(0.01)
    before = real.now()
    for _ in range(10):
        scaled.sleep(0.5)
    assert scaled.now() == pytest.approx(5.0)
    assert real.now() - before >= 0.05


def test_a_simulated_launch_takes_real_time_when_asked() -> None:
    of = asked(2, shape_name="tiny", time_scale=1, load_s=0.0)
    clock = clock_for(of)
    engine = SimulatedEngine(of, SIZES, [], clock)
    engine.load()
    before = clock.now()
    events = list(engine.generate(requests(2), of))
    assert before <= events[0].t_s < events[-1].t_s <= clock.now()
    assert total_j(engine) > 0
