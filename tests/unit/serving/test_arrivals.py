"""Recorded arrivals and the laws fitted to them: what is read, what is fitted, and what is drawn."""

import json

import numpy as np
import pytest

from prophet_moe.errors import UserError
from prophet_moe.files import write_json
from prophet_moe.serving.arrival_law import FOLDER, draw, fit, read_law
from prophet_moe.serving.arrivals import READERS, arrivals_of, read_azure, read_mooncake, spread
from tests.conftest import ROOT

SOURCE = {"dataset": "made-up", "sha256": "0" * 64, "licence": "none", "citation": "none"}
HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens"
LAWS = {name: read_law(ROOT / FOLDER / f"{name}.json") for name in READERS}


def test_azure_file_is_read_in_seconds_from_the_first(tmp_path):
    path = tmp_path / "azure.csv"
    path.write_text(f"{HEADER}\n2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:16:50.9306000,396,109\n")
    found = read_azure(path, "conv")
    assert found.seconds.tolist() == pytest.approx([0, 64.25001])
    assert found.prompts.tolist() == [374, 396] and found.outputs.tolist() == [44, 109]
    assert found.block_tokens == 0 and found.rate == pytest.approx(1 / 64.25001)


def test_mooncake_file_keeps_full_blocks_and_spreads_equal_times(tmp_path):
    rows = [(0, 1100, [7, 8, 9]), (0, 600, [7, 5]), (3000, 400, [6])]
    lines = [json.dumps({"timestamp": t, "input_length": n, "output_length": 2, "hash_ids": b}) for t, n, b in rows]
    path = tmp_path / "mooncake.jsonl"
    path.write_text("\n".join(lines))
    found = read_mooncake(path, "chat")
    order = np.argsort(found.prompts)[::-1]
    own = [found.blocks[found.starts[r] : found.starts[r + 1]].tolist() for r in order]
    assert [len(each) for each in own] == [2, 1, 0] and own[0][0] == own[1][0]
    assert 0 <= found.seconds[1] - found.seconds[0] < 3 and found.block_tokens == 512


def test_spread_keeps_single_times_and_the_order_of_times():
    stamps = np.array([0.0, 0, 0, 3, 6, 6])
    found = spread(stamps)
    assert found[3] == 3 and (np.diff(found) >= 0).all() and (found >= stamps).all() and (found < stamps + 3).all()
    assert len(set(found)) == 6


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{HEADER}\nyesterday,3,4\nnow,3,4\n", "malformed"),
        (f"{HEADER}\n2023-11-16 18:15:46,3,four\n2023-11-16 18:15:47,3,4\n", "malformed"),
        ("TIME,A,B\n", "has column"),
        (f"{HEADER}\n2023-11-16 18:15:46,3,4\n2023-11-16 18:15:46,3,4\n", "expected several at different times"),
        (f"{HEADER}\n2023-11-16 18:15:46,0,4\n2023-11-16 18:15:47,3,4\n", "of no token"),
    ],
)
def test_file_of_arrivals_that_is_none_is_one_line(tmp_path, text, message):
    path = tmp_path / "azure.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_azure(path, "conv")


@pytest.mark.parametrize("line", ["{", "3", '{"timestamp": 0}', '{"timestamp": "x"}'])
def test_malformed_line_of_mooncake_is_one_line(tmp_path, line):
    path = tmp_path / "mooncake.jsonl"
    path.write_text(line)
    with pytest.raises(UserError, match="malformed"):
        read_mooncake(path, "chat")


@pytest.mark.parametrize("name", LAWS)
def test_law_fitted_to_drawn_arrivals_is_the_law(name):
    law = LAWS[name]
    again = fit(draw(law, 6000, 1), **SOURCE)
    assert again.rate == pytest.approx(law.rate, rel=0.1)
    assert again.gaps[0].shape == pytest.approx(law.gaps[0].shape, rel=0.05)
    assert again.prompt.mean_log == pytest.approx(law.prompt.mean_log, abs=0.1)
    assert again.output.deviation_log == pytest.approx(law.output.deviation_log, rel=0.2)
    assert again.correlation == pytest.approx(law.correlation, abs=0.05)
    if law.prefixes:
        assert again.prefixes.common_blocks == law.prefixes.common_blocks
        assert again.prefixes.continued_share == pytest.approx(law.prefixes.continued_share, abs=0.08)
        assert again.prefixes.hit_share == pytest.approx(law.prefixes.hit_share, abs=0.08)


def test_draw_is_the_same_for_a_seed_and_scales_with_the_rate():
    law = LAWS["azure-code"]
    one, same, other = draw(law, 500, 3), draw(law, 500, 3), draw(law, 500, 4)
    assert (one.seconds == same.seconds).all() and (one.prompts == same.prompts).all()
    assert (one.prompts[:100] != other.prompts[:100]).any()
    assert len(draw(law, 500, 3, rate=20.0)) == 10_000


def test_gaps_are_ranked_by_likelihood_and_found_again():
    random = np.random.default_rng(0)
    when = np.cumsum(random.weibull(0.5, 5000))
    found = fit(arrivals_of("made-up", when, [5] * 2500 + [9] * 2500, [3, 4] * 2500), **SOURCE)
    assert found.gaps[0].law == "weibull" and found.gaps[0].shape == pytest.approx(0.5, rel=0.05)
    assert [law.log_likelihood for law in found.gaps] == sorted((g.log_likelihood for g in found.gaps), reverse=True)
    assert found.prefixes is None and found.output.least == 3 and found.prompt.most == 9


def test_law_that_is_malformed_is_one_line(tmp_path):
    path = tmp_path / "law.json"
    write_json(path, {**LAWS["azure-code"].model_dump(), "rate": -1.0})
    with pytest.raises(UserError, match="rate"):
        read_law(path)
