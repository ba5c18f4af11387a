"""A ratio of two results and its p: by hand, by definitions written another way, and by scipy."""

import itertools
import math
import statistics

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from sweeper.answers.adjustment import adjusted, benjamini_hochberg, holm
from sweeper.answers.change import MIN_BLOCKS, Launched, change
from sweeper.answers.interval import p_value, t_quantile

scipy_stats = pytest.importorskip("scipy.stats")
POSITIVE = st.floats(0.01, 1000.0)
SEVERAL = st.lists(POSITIVE, min_size=2, max_size=7)
PAIRS = st.lists(st.tuples(POSITIVE, POSITIVE), min_size=2, max_size=8)
PS = st.lists(st.floats(0, 1) | st.sampled_from([0.01, 0.02, 0.04]), max_size=7)
T_1, T_2 = 12.7062047, 4.30265273


def side(*values, lease="t", boards=None):
    """A launch in each lease, on the boards named by a letter each."""
    where = [*(boards or [()] * len(values))]
    return {
        (f"{lease}{index}", 0): [Launched(value, frozenset(where[index]))]
        for index, value in enumerate(values)
    }


def pairs(values, **fields):
    return (
        side(*(one for one, _ in values), **fields),
        side(*(other for _, other in values), **fields),
    )


def test_an_unpaired_change_by_hand():
    """Logarithms 0 and 2 d against 0 and d: Welch's 1.47 degrees of freedom are rounded down."""
    d = 0.1
    made = change(side(1.0, math.exp(2 * d)), side(1.0, math.exp(d), lease="u"))
    error = math.sqrt(d**2 + (d / 2) ** 2)
    assert not made.paired
    assert (made.launches, made.blocks) == ((2, 2), 0)
    assert made.ratio == pytest.approx(math.exp(d / 2))
    assert made.low == pytest.approx(math.exp(d / 2 - T_1 * error))
    assert made.high == pytest.approx(math.exp(d / 2 + T_1 * error))
    assert made.p == pytest.approx(1 - 2 / math.pi * math.atan(d / 2 / error))


def test_a_paired_change_by_hand():
    """Blocks that differ by halves have ratios of 1, e^0.1 and e^0.2: the halves cancel."""
    made = change(side(10.0, 5.0 * math.exp(0.1), 20.0 * math.exp(0.2)), side(10.0, 5.0, 20.0))
    half = T_2 * 0.1 / math.sqrt(3)
    assert made.paired
    assert (made.launches, made.blocks) == ((3, 3), 3)
    assert made.ratio == pytest.approx(math.exp(0.1))
    assert (made.low, made.high) == pytest.approx((math.exp(0.1 - half), math.exp(0.1 + half)))


@given(PAIRS)
def test_paired_is_the_paired_t_test_on_logarithms(values):
    ours, theirs = pairs(values)
    made = change(ours, theirs)
    apart = [math.log(one) - math.log(other) for one, other in values]
    assume(statistics.stdev(apart) > 1e-6)
    expected = scipy_stats.ttest_1samp(apart, 0.0)
    interval = expected.confidence_interval(0.95)
    assert made.paired
    assert made.p == pytest.approx(expected.pvalue, abs=1e-9)
    assert math.log(made.ratio) == pytest.approx(statistics.fmean(apart), abs=1e-9)
    assert (math.log(made.low), math.log(made.high)) == pytest.approx(
        (interval.low, interval.high), rel=1e-6, abs=1e-9
    )


@given(SEVERAL, SEVERAL)
def test_unpaired_is_welch_s_t_test_on_logarithms_with_whole_degrees_of_freedom(one, other):
    logs = [[math.log(value) for value in values] for values in (one, other)]
    assume(min(statistics.stdev(each) for each in logs) > 1e-6)
    made = change(side(*one), side(*other, lease="u"))
    expected = scipy_stats.ttest_ind(*logs, equal_var=False)
    whole = math.floor(expected.df * (1 + 1e-9))
    half = scipy_stats.t.ppf(0.975, whole) * math.sqrt(
        sum(statistics.variance(each) / len(each) for each in logs)
    )
    middle = statistics.fmean(logs[0]) - statistics.fmean(logs[1])
    assert made.p == pytest.approx(2 * scipy_stats.t.sf(abs(expected.statistic), whole), abs=1e-9)
    assert made.p >= expected.pvalue - 1e-9
    assert (math.log(made.low), math.log(made.high)) == pytest.approx(
        (middle - half, middle + half), rel=1e-6, abs=1e-9
    )


@given(st.floats(-40, 40), st.integers(1, 60))
def test_p_is_scipy_s(t, freedom):
    assert p_value(t, freedom) == pytest.approx(
        2 * scipy_stats.t.sf(abs(t), freedom), rel=1e-6, abs=1e-12
    )


@given(st.integers(1, 60))
def test_p_and_quantile_are_each_other_s_inverse(freedom):
    assert p_value(t_quantile(0.975, freedom), freedom) == pytest.approx(0.05)


@given(PAIRS, st.booleans())
def test_p_is_below_a_twentieth_exactly_where_the_interval_leaves_out_one(values, paired):
    ours, theirs = pairs(values)
    made = change(ours, theirs if paired else {("u", *key): each for key, each in theirs.items()})
    assume(abs(made.p - 0.05) > 1e-6)
    assert made.paired is paired
    assert (made.p < 0.05) is not (made.low <= 1 <= made.high)


@given(PAIRS, st.floats(0.01, 100))
def test_no_unit_and_no_board_s_gain_changes_a_change(values, unit):
    made = change(*pairs(values))
    again = change(*pairs([(unit * one, unit * other) for one, other in values]))
    assert (again.ratio, again.low, again.p) == pytest.approx(
        (made.ratio, made.low, made.p), rel=1e-6, abs=1e-6
    )
    back = change(*reversed(pairs(values)))
    assert (back.low * made.high, back.high * made.low) == pytest.approx((1, 1))
    assert back.p == pytest.approx(made.p)


@given(PAIRS, st.lists(st.floats(0.5, 2), min_size=8, max_size=8))
def test_what_a_block_shares_cancels(values, gains):
    shifted = [
        (gain * one, gain * other) for gain, (one, other) in zip(gains, values, strict=False)
    ]
    made, again = change(*pairs(values)), change(*pairs(shifted))
    assert (again.ratio, again.low) == pytest.approx((made.ratio, made.low), rel=1e-6)


def test_where_one_side_has_no_spread_the_other_s_counts_alone():
    made = change(side(*map(math.exp, (0.1, 0.2, 0.3))), side(1.0, 1.0, lease="u"))
    half = T_2 * 0.1 / math.sqrt(3)
    assert (made.low, made.high) == pytest.approx((math.exp(0.2 - half), math.exp(0.2 + half)))


def test_without_any_spread_there_is_no_doubt_and_without_a_change_no_sign_of_one():
    assert change(*pairs([(2.0, 1.0)] * 3)).p == 0
    assert change(*pairs([(1.0, 1.0)] * 3)).p == 1
    assert change(side(1.0, 1.0), side(1.0, 1.0, lease="u")).p == 1


@pytest.mark.parametrize(("ours", "theirs"), [((), (1.0,)), ((0.0, 1.0), (1.0, 1.0))])
def test_what_has_no_logarithm_has_no_ratio(ours, theirs):
    assert change(side(*ours), side(*theirs)) is None
    assert change(side(*theirs), side(*ours)) is None


@pytest.mark.parametrize(
    ("ours", "theirs", "lease"),
    [((8.0,), (6.0,), "t"), ((8.0,), (6.0,), "u"), ((8.0, 9.0, 10.0), (6.0,), "u")],
)
def test_one_launch_on_a_side_gives_a_ratio_and_neither_interval_nor_p(ours, theirs, lease):
    made = change(side(*ours), side(*theirs, lease=lease))
    assert made.ratio == pytest.approx(statistics.geometric_mean(ours) / 6)
    assert (made.low, made.high, made.p) == (None, None, None)
    [again] = adjusted([made])
    assert (again.p_adjusted, again.adjustment, again.significant) == (None, None, None)


def test_a_block_that_lost_a_side_is_left_out_of_the_pairs():
    ours, theirs = side(2.0, 2.0, 2.0, 90.0), side(1.0, 1.0, 1.0)
    made = change(ours, theirs)
    assert (made.paired, made.blocks, made.launches) == (True, 3, (3, 3))
    assert made.ratio == pytest.approx(2)


def test_a_few_blocks_among_many_leases_make_no_pairs():
    ours = side(2.0, 2.1, 2.2, 2.3)
    theirs = {**side(1.0, 1.1), **side(1.2, 1.3, lease="u")}
    made = change(ours, theirs)
    assert (made.paired, made.blocks, made.launches) == (False, 0, (4, 4))


def test_two_launches_of_a_side_in_one_block_are_one_value():
    ours = {("t0", 0): [Launched(1.0), Launched(4.0)], ("t1", 0): [Launched(2.0)]}
    made = change(ours, side(1.0, 1.0))
    assert (made.blocks, made.launches) == (2, (3, 2))
    assert made.ratio == pytest.approx(2)
    assert made.low == pytest.approx(made.high)


@pytest.mark.parametrize(
    ("ours", "theirs", "paired", "boards", "beside"),
    [
        ("aa", "aa", True, (1, 1), None),
        ("ab", "ab", True, (2, 2), None),
        ("aa", "aa", False, (1, 1), None),
        ("aa", "bb", False, (1, 1), 0.05),
        ("ab", "bb", False, (2, 1), 0.05),
        ("aa", "ab", False, (1, 2), 0.05),
        ("ab", "cd", False, (2, 2), None),
        (["a", "a"], ["ab", "ab"], True, (1, 1), 0.05),
        (["a", "c"], ["ab", "cd"], True, (2, 2), None),
        (["ab", "ab"], ["ab", "ab"], False, (1, 1), None),
        (["a", ""], ["a", "a"], True, (None, 1), 0.05),
        (["", ""], ["", ""], True, (None, None), 0.05),
    ],
)
def test_a_gain_error_that_no_launch_can_see_stands_beside(ours, theirs, paired, boards, beside):
    lease = "t" if paired else "u"
    made = change(side(1.0, 1.1, boards=ours), side(1.0, 1.2, boards=theirs, lease=lease), 0.05)
    assert (made.paired, made.boards, made.systematic) == (paired, boards, beside)


def test_a_ratio_that_two_gains_could_make_is_said_to_be_no_more():
    small, large = ((side(1.08 / f), side(1.0, lease="u")) for f in (1, 2))
    assert change(*small, 0.05).within_gain
    assert not change(*large, 0.05).within_gain
    assert not change(*small).within_gain
    assert not change(side(1.106), side(1.0, lease="u"), 0.05).within_gain
    assert change(side(1 / 1.105), side(1.0, lease="u"), 0.05).within_gain


def by_definition_holm(ps, place):
    """The least level at which a step-down procedure rejects: tried at every level it could be."""
    count = len(ps)

    def rejected(level):
        found = set()
        for rank, each in enumerate(sorted(range(count), key=ps.__getitem__)):
            if (count - rank) * ps[each] > level:
                break
            found.add(each)
        return found

    levels = sorted({min(1.0, k * p) for k in range(1, count + 1) for p in ps} | {1.0})
    return next((level for level in levels if place in rejected(level)), 1.0)


def by_definition_hochberg(ps, place):
    """The least level at which the step-up procedure rejects."""
    count = len(ps)

    def bar(level):
        below = [p for k, p in enumerate(sorted(ps), start=1) if count / k * p <= level]
        return max(below, default=-1.0)

    levels = sorted({min(1.0, count / k * p) for k in range(1, count + 1) for p in ps} | {1.0})
    return next((level for level in levels if ps[place] <= bar(level)), 1.0)


@given(PS)
def test_holm_is_the_least_level_of_the_step_down_procedure(ps):
    assert holm(ps) == pytest.approx([by_definition_holm(ps, n) for n in range(len(ps))])


@given(PS)
def test_holm_is_the_closure_of_bonferroni(ps):
    """A claim holds where every set of nulls that has it is rejected by its least p times size."""
    places = range(len(ps))
    sets = [s for size in places for s in itertools.combinations(places, size + 1)]
    closed = [
        max(min(1.0, len(s) * min(ps[i] for i in s)) for s in sets if place in s)
        for place in places
    ]
    assert holm(ps) == pytest.approx(closed)


@given(PS)
def test_benjamini_hochberg_is_the_least_level_of_the_step_up_procedure(ps):
    expected = [by_definition_hochberg(ps, n) for n in range(len(ps))]
    assert benjamini_hochberg(ps) == pytest.approx(expected)
    assert benjamini_hochberg(ps) == pytest.approx([*scipy_stats.false_discovery_control(ps)])


@given(PS)
def test_adjusting_never_lowers_a_p_and_holm_is_the_stricter(ps):
    for p, strict, lax in zip(ps, holm(ps), benjamini_hochberg(ps), strict=True):
        assert p <= lax + 1e-12
        assert lax <= strict + 1e-12
        assert strict <= 1


def test_adjusted_by_hand():
    ps = [0.01, 0.04, 0.03, 0.005]
    assert holm(ps) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert benjamini_hochberg(ps) == pytest.approx([0.02, 0.04, 0.04, 0.02])


def blocks(count, ratio=2.0):
    return change(*pairs([(ratio * (1 + 0.01 * (-1) ** n), 1.0) for n in range(count)]))


def test_claims_are_by_holm_and_the_rest_screens_by_benjamini_and_hochberg():
    screened = change(side(2.0, 2.1, 2.2), side(1.0, 1.1, 1.2, lease="u"))
    alone = change(side(2.0), side(1.0, lease="u"))
    given_ = [blocks(6), screened, alone, blocks(7, 1.0), blocks(5)]
    claim, screen, none, nothing, few = adjusted(given_)
    assert MIN_BLOCKS == 6
    assert (claim.adjustment, claim.family, claim.significant) == ("Holm", 2, True)
    assert claim.p_adjusted == pytest.approx(2 * claim.p)
    assert (nothing.adjustment, nothing.significant) == ("Holm", False)
    assert (screen.adjustment, screen.family, screen.significant) == ("Benjamini-Hochberg", 2, None)
    assert (few.adjustment, few.significant) == ("Benjamini-Hochberg", None)
    assert few.p < 0.001
    assert none == alone


def test_what_is_significant_alone_need_not_be_among_many():
    noisy = [(1 + 0.05 * n, 1.0) for n in (-0.1, 0.1, 0.6, 0.7, 0.8, 1.3)]
    one = change(*pairs(noisy))
    assert 0.025 < one.p < 0.05
    [alone] = adjusted([one])
    among = adjusted([one, one])
    assert alone.significant
    assert [each.significant for each in among] == [False, False]
