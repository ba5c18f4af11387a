import pytest

from sweeper.answers.change import Change
from sweeper.answers.change_words import (
    basis_text,
    change_text,
    claim_text,
    gain_text,
    p_text,
    verdict_text,
)


def made(ratio=0.8, **fields):
    known = {
        "low": 0.7,
        "high": 0.9,
        "paired": True,
        "launches": (6, 6),
        "blocks": 6,
        "boards": (2, 2),
        "systematic": None,
        "p": 0.01,
    }
    return Change(ratio=ratio, **{**known, **fields})


APART = {"paired": False, "blocks": 0}
NONE = {"low": None, "high": None, "p": None}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (made(), "paired, 6 blocks, on 2 boards"),
        (made(boards=(1, 1)), "paired, 6 blocks, on 1 board"),
        (made(boards=(None, 2)), "paired, 6 blocks"),
        (made(blocks=1, launches=(1, 1), boards=(1, 1), **NONE),
         "paired, one block: no interval, on 1 board"),
        (made(launches=(3, 4), **APART), "unpaired, 3 and 4 launches, on 2 boards"),
        (made(launches=(3, 3), boards=(1, 2), **APART), "unpaired, 3 launches, on 1 and 2 boards"),
        (made(launches=(1, 4), boards=(None, None), **APART, **NONE),
         "unpaired, one launch: no interval"),
    ],
)  # fmt: skip
def test_how_a_change_was_measured(change, said):
    assert basis_text(change) == said


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"significant": True, "adjustment": "Holm"}, "significant, p 0.040 (Holm, over 3)"),
        ({"significant": False, "adjustment": "Holm"}, "not significant, p 0.040 (Holm, over 3)"),
        (
            {"adjustment": "Benjamini-Hochberg", "family": 1, "blocks": 5},
            "p 0.040 (Benjamini-Hochberg, one comparison): no claim, fewer than 6 blocks",
        ),
        (
            {"adjustment": "Benjamini-Hochberg", "paired": False},
            "p 0.040 (Benjamini-Hochberg, over 3): no claim, unpaired",
        ),
        ({"p_adjusted": None}, ""),
    ],
)
def test_what_may_be_claimed(fields, said):
    assert verdict_text(made(**{"p_adjusted": 0.04, "family": 3, **fields})) == said


def test_the_gain_that_stands_beside():
    assert gain_text(made()) == ""
    beside = "±5 % of the boards' gain on each side beside it"
    assert gain_text(made(systematic=0.05)) == beside
    alone = gain_text(made(0.95, systematic=0.05))
    assert alone == f"{beside}, which alone could make the difference"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"significant": True}, "significant, p 0.040"),
        ({"significant": False, "systematic": 0.05}, "not significant, p 0.040; ±5 % beside it"),
        ({}, "screening, p 0.040"),
        ({"p_adjusted": None, "systematic": 0.05}, "no interval; ±5 % beside it"),
    ],
)
def test_what_may_be_claimed_in_a_cell(fields, said):
    assert claim_text(made(**{"p_adjusted": 0.04, **fields})) == said


def test_sizes_and_ps():
    assert change_text(made()) == "−20.0 % [−30.0, −10.0]"  # noqa: RUF001
    assert change_text(made(**NONE)) == "−20.0 %"  # noqa: RUF001
    assert [p_text(p) for p in (0.0, 0.000999, 0.001, 0.0123, 1.0)] == [
        *("< 0.001", "< 0.001", "0.0010", "0.012", "1.0"),
    ]
