import pytest

from sweeper.engines.simulated_options import read_options
from sweeper.errors import StudyError
from tests.simulated import asked


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"noize": 0.1}, r"engine\.options\.noize: not an option .*known: gpu, noise"),
        ({"gpu": "H900"}, "GPU type 'H900'"),
        ({"gpu": 7}, r"engine\.options\.gpu: 7; wanted"),
        ({"noise": -0.1}, r"engine\.options\.noise"),
        ({"time_scale": "fast"}, r"engine\.options\.time_scale: 'fast'"),
        ({"fail": {"at": "load"}}, r"engine\.options\.fail\.kind: missing"),
        ({"fail": {"kind": "boom"}}, r"error, crash, hang, leak, oom"),
        ({"fail": "boom"}, r"engine\.options\.fail: 'boom'; wanted"),
        ({"fail": {"kind": "oom", "when": 3}}, r"engine\.options\.fail\.when: not an option"),
        ({"helpers": True}, r"engine\.options\.helpers"),
        ({"oom_at_load": 1}, r"engine\.options\.oom_at_load: 1; wanted: true or false"),
    ],
)
def test_wrong_options_are_refused_by_name(options: dict[str, object], said: str) -> None:
    with pytest.raises(StudyError, match=said):
        read_options(asked(**options))


def test_all_wrong_options_are_told_at_once() -> None:
    with pytest.raises(StudyError) as told:
        read_options(asked(noise=3, helpers=-1, turbo=True, fail={"kind": "x", "at": "y"}))
    assert len(told.value.faults) == 5
