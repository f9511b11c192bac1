"""Hit rates at a number of slots: interpolation, one token cycle, batches, and curves given by hand or simulated."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prophet_moe.capacity.hit_rates import read_hit_rates
from prophet_moe.capacity.reference import unique_experts
from prophet_moe.errors import UserError
from prophet_moe.planning.curve import OWN, STAND_IN, curve_of, given_curve, simulated_curve
from prophet_moe.planning.stand_in import routings_in, stand_in
from prophet_moe.routing.published import read_published
from prophet_moe.settings.scenario import CALIBRATED
from tests.conftest import ROOT
from tests.unit.planning.situations import curve

TABLE = (
    "routing,experts,top_k,slots,hit_rate,miss_factor_own,miss_factor_stand_in\n"
    "a,16,2,4,0.5,1.5,2\na,16,2,8,0.8,1.5,2\n"
)


@given(st.floats(0, 20), st.floats(2, 16))
def test_rates_lie_in_their_interval(slots, cycle):
    low, high = curve().interval(slots, cycle)
    assert 0 <= low <= curve().at(slots, cycle) <= high <= 1


@given(st.floats(2, 16), st.floats(0, 16), st.floats(0, 16))
def test_rates_never_fall_with_slots(cycle, one, other):
    few, many = sorted((one, other))
    assert curve().at(few, cycle) <= curve().at(many, cycle) + 1e-12


def test_rate_is_linear_between_points_and_none_below_a_cycle():
    made = curve_of(16, 2, [(4, 0.5), (8, 0.7)], "made up", 2.0)
    assert [made.at(slots) for slots in (0, 1.99, 2, 3, 4, 6, 12, 16, 99)] == pytest.approx(
        [0, 0, 0, 0.25, 0.5, 0.6, 0.85, 1, 1]
    )
    assert made.interval(6) == pytest.approx((0.2, 0.8))


def test_a_step_hits_its_slots_and_misses_the_rest_at_most():
    made = curve_of(16, 2, [(2, 0.0)], "made up", 1.0)
    assert made.at(15, cycle=12) >= 1 - 1 / 12
    assert made.at(6, cycle=12) <= 0.5
    assert curve().at(8, cycle=16) == pytest.approx(0.5)


def test_a_batch_of_one_is_one_sequence():
    assert all(curve().at(slots, 2.0) == curve().at(slots) for slots in range(17))


@pytest.mark.parametrize("batch", [4, 8, 16, 32, 64])
def test_batches_agree_with_the_simulated_frontier(batch):
    """The frontier simulates independent sequences; the closed form is within 0.1 of it from 4 to 64 of them."""
    table, curves = ROOT / "tables/data/frontier.csv", ROOT / "tables/data/planner_hit_curves.csv"
    rates = read_hit_rates(table, batch)["OLMoE-1B-7B"]
    made = simulated_curve(curves, rates.trace, 64, 8, STAND_IN)
    cv = read_popularity_cv("OLMoE-1B-7B")
    unique = unique_experts(CALIBRATED.routing, 64, 8, cv, batch)
    for slots, rate in rates.points:
        assert made.at(slots, unique) == pytest.approx(rate, abs=0.1), slots


def read_popularity_cv(model: str) -> float:
    """The popularity CV of a model by published counts of web text."""
    return next(row.effective_cv for row in read_published() if row.stands_for == model and row.clean)


def test_curve_by_hand_takes_slots_and_shares():
    made = given_curve("0.25:0.5,8:0.8", 16, 2)
    assert made.points == ((0.25, 0.5), (0.5, 0.8)) and made.miss_factor == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("eight:0.5", "expected slots:hit"),
        ("8", "expected slots:hit"),
        ("", "expected slots:hit"),
        ("8:1.5", "hit rate of 0 to 1"),
        ("17:0.5", "up to 16 slots"),
        ("8:nan", "hit rate of 0 to 1"),
        ("4:0.8,8:0.5", "never falls"),
        ("1:0.5", "no point of at least 2 slots"),
    ],
)
def test_wrong_curves_are_one_line(text, words):
    with pytest.raises(UserError, match=words):
        given_curve(text, 16, 2)


@given(st.one_of(st.text(max_size=40), st.from_regex(r"[-0-9.e:,]{0,30}", fullmatch=True)))
def test_any_text_is_a_curve_or_one_line(text):
    try:
        made = given_curve(text, 16, 2)
    except UserError as error:
        assert "\n" not in str(error)
    else:
        assert all(0 <= made.at(slots) <= 1 for slots in range(17))


def test_simulated_curve_says_whose_it_is(tmp_path):
    path = tmp_path / "curves.csv"
    path.write_text(TABLE)
    own, other = (simulated_curve(path, "a", 16, 2, basis) for basis in (OWN, STAND_IN))
    assert (own.miss_factor, other.miss_factor) == (1.5, 2.0)
    assert "the model's own" in own.origin and "stand-in" in other.origin
    scaled = simulated_curve(path, "a", 32, 2, STAND_IN)
    assert scaled.at(16) == own.at(8) and "read by share" in scaled.origin


@pytest.mark.parametrize("text", ["", "routing,slots\na,2\n", TABLE.replace("0.5", "x"), TABLE.replace("0.8", "8")])
def test_wrong_tables_of_curves_are_one_line(tmp_path, text):
    path = tmp_path / "curves.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=r"curves\.csv"):
        simulated_curve(path, "a", 16, 2, OWN)
    with pytest.raises(UserError, match="no such file"):
        simulated_curve(tmp_path / "none.csv", "a", 16, 2, OWN)


def test_stand_in_is_the_models_own_at_its_k():
    routings = routings_in(ROOT / "resources/routing")
    assert stand_in("Qwen3-30B-A3B", 128, 8, routings) == ("qwen3-30b-a3b", True)
    assert stand_in("Qwen3-235B", 128, 8, routings) == ("qwen3-30b-a3b", False)


def test_folder_without_routings_is_one_line(tmp_path):
    with pytest.raises(UserError, match="no calibrated routing"):
        routings_in(tmp_path)
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(UserError, match=r"bad\.json"):
        routings_in(tmp_path)
