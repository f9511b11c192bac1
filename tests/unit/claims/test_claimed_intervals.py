"""Claimed numbers beside an interval that was found."""

from prophet_moe.claims.claimed import agrees, in_words, parse_claimed


def test_an_interval_agrees_with_the_numbers_that_it_holds():
    assert agrees(parse_claimed("2.3"), (1.7, 3.2), within=True)
    assert not agrees(parse_claimed("5.7"), (0.2, 1.4), within=True)


def test_an_interval_is_widened_by_the_precision():
    assert agrees(parse_claimed("1.4"), (0.2, 1.36), within=True)
    assert agrees(parse_claimed("1.50"), (1.2, 1.49), relative=0.01, within=True)


def test_several_numbers_agree_with_one_where_all_do():
    assert not agrees(parse_claimed("2.3"), (1.7, 3.2))


def test_equal_ends_are_printed_once():
    assert in_words((0.0, 0.0)) == "0"
    assert in_words((0.5, 1.0)) == "0.5 to 1"
