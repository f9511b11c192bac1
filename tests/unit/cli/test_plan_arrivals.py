"""The option `plan --arrivals`: the batch that is planned for is the one that comes of the arrivals."""

import json
from dataclasses import replace

import numpy as np
import pytest

from prophet_moe.cli.plan_arrivals import Named, _demand, arrivals_named
from prophet_moe.planning.demand import Demand, sentences
from prophet_moe.serving.batching import Limits, serve
from tests.unit.cli.test_plan import plan, project  # noqa: F401
from tests.unit.serving.builders import random_arrivals, small_times

LARGE = ["--model", "Qwen3-30B-A3B", "--gpu", "A100-80GB"]
SMALL = ["--model", "Qwen3-30B-A3B", "--gpu", "RTX5090-32GB"]
FOUND = Demand(
    arrivals="made up",
    served_with="every expert resident",
    instances=1,
    rate=2.0,
    batch=7,
    batch_median=3,
    request_tokens=(900, 4000),
    first_token_seconds=(0.2, 9.0),
    token_seconds=(0.02, 0.03),
    first_token_limit=5.0,
    kv_mean_share=0.1,
    kv_most_share=0.4,
    busy_share=0.8,
    refused_share=0.0,
)


@pytest.fixture
def found(plan):  # noqa: F811
    """Run the command with --json; returns its only plan."""

    def run(*arguments: str) -> dict:
        out, error = plan(*arguments, "--json")
        assert not error
        (only,) = json.loads(out)
        return only

    return run


def test_batch_is_that_of_the_arrivals_with_all_experts(found):
    one = found(*LARGE, "--arrivals", "azure-conversation", "--instances", "2")
    served = one["arrivals"]
    assert one["batch"] == served["batch"] >= served["batch_median"] >= 1
    assert served["keeps_up"] and "every expert resident" in served["served_with"]
    assert one["recommendation"]["context"] == served["request_tokens"][1]
    assert one["recommendation"]["kind"] == "keep_all"


def test_more_instances_have_smaller_batches(found):
    batches = [
        found(*LARGE, "--arrivals", "azure-conversation", "--instances", count)["batch"] for count in ("2", "8", "64")
    ]
    assert batches[0] > batches[1] > batches[2] >= 1


def test_arrivals_are_served_with_slots_where_not_all_fit(found):
    one = found(*SMALL, "--arrivals", "azure-code", "--instances", "8", "--context", "8192")
    split = one["contexts"][-1]
    assert split["slots"] < one["experts"] * one["moe_layers"]
    assert f"{split['slots']:,} experts in slots" in one["arrivals"]["served_with"]
    assert one["arrivals"]["batch"] <= one["batch"]


def test_text_says_what_the_batch_is(plan):  # noqa: F811
    out, error = plan(*LARGE, "--arrivals", "azure-code", "--instances", "4")
    plain = " ".join(out.split())
    assert not error and "95% of the decoded tokens have at most so many sequences" in plain
    assert "requests drawn from its law" in plain and "scheduled as vllm does" in plain


def test_planned_batch_holds_95_percent_of_the_tokens():
    limits = Limits(capacity=600, sequences=12, tokens=40, longest=60)
    served = serve(random_arrivals(3, 200), small_times(limits), limits)
    sizes = np.repeat(np.arange(len(served.batches.decoded)), np.round(served.batches.decoded).astype(int))
    made = _demand(Named(served.arrivals, "made up"), served, "", 5.0)
    assert np.mean(sizes <= made.batch) >= 0.95 > np.mean(sizes <= made.batch - 1)
    assert np.mean(sizes <= made.batch_median) >= 0.5 > np.mean(sizes <= made.batch_median - 1)


def test_sentences_say_whether_instances_keep_up():
    text = " ".join(sentences(FOUND))
    assert "batch of 7" in text and "half of them 3" in text and "does not keep up" in text and "refused" not in text
    other = " ".join(sentences(replace(FOUND, first_token_seconds=(0.2, 1.0), refused_share=0.01, token_seconds=None)))
    assert "keep up" not in other and "1.0% are too long and refused" in other and "further token" not in other


def test_files_of_recorded_arrivals_are_served_whole(tmp_path):
    azure = tmp_path / "mine.csv"
    azure.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-11-16 18:17:03.9799600,100,10\n2023-11-16 18:17:05.0000000,200,20\n"
    )
    named = arrivals_named(str(azure), 60, 0)
    assert len(named.arrivals) == 2 and named.what.endswith("mine.csv as recorded") and named.tokens[1] <= 220
    mooncake = tmp_path / "mine.jsonl"
    rows = [{"timestamp": 3000 * n, "input_length": 600, "output_length": 5, "hash_ids": [0, n]} for n in range(3)]
    mooncake.write_text("\n".join(json.dumps(row) for row in rows))
    assert arrivals_named(str(mooncake), 60, 0).arrivals.block_tokens == 512


def test_laws_are_drawn_for_the_asked_time(project, monkeypatch):  # noqa: F811
    monkeypatch.chdir(project)
    monkeypatch.delenv("PROPHET_DATA", raising=False)
    path = arrivals_named("resources/arrivals/azure-code.json", 600, 0)
    assert len(path.arrivals) == len(arrivals_named("azure-code", 600, 0).arrivals)
    assert path.what.endswith("drawn from its law for 600 s")
