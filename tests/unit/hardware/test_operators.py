"""Fits of published operator times: laws that are known are found, and the committed fits are those of the tables."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prophet_moe.catalog import load_gpus
from prophet_moe.errors import UserError
from prophet_moe.hardware.operators import (
    KINDS,
    POINTS,
    Fit,
    _balanced_out,
    balanced_experts,
    fit_law,
    fit_operators,
    power_law_experts,
    read_operators,
    to_json,
)
from prophet_moe.routing.datasets import data_folders, load_datasets, located
from tests.conftest import ROOT

GPUS = load_gpus(ROOT / "config/gpus.yaml")
H100 = GPUS["H100-80GB"]
FOLDER = ROOT / "resources/operators"
FITTED = {"A100-80GB": "a100_sxm", "H100-80GB": "h100_sxm", "H200-141GB": "h200_sxm"}
COMMITTED = {gpu: read_operators(FOLDER, gpu) for gpu in FITTED}
TABLES = load_datasets(ROOT / "config/datasets.yaml").datasets["aiconfigurator-operators"]


def points_of(fixed_us: float, hbm_share: float, peak_share: float, count: int = 60) -> pd.DataFrame:
    """Return points that obey a law, as a plain loop computes them."""
    random, rows = np.random.default_rng(1), []
    for number in range(count):
        size, flops = 10 ** random.uniform(5, 10), 10 ** random.uniform(6, 13)
        moved, done = size / (hbm_share * 3.35e12), flops / (peak_share * 989.4e12)
        rows.append((f"shape {number % 7}", size, flops, fixed_us * 1e-6 + math.sqrt(moved**2 + done**2)))
    return pd.DataFrame(rows, columns=["shape", "bytes", "flops", "seconds"])


def test_law_of_known_points_is_found():
    fit = fit_law("gemm", "bf16", points_of(12.5, 0.8, 0.6), H100)
    assert (fit.fixed_us, fit.hbm_share, fit.peak_share) == pytest.approx((12.5, 0.8, 0.6), rel=1e-3)
    assert fit.mean_error < 1e-3 and fit.left_out_p90_error < 1e-3
    assert (fit.rows, fit.shapes, fit.each_us) == (60, 7, 0)


def test_law_of_points_with_experts_is_found():
    points = points_of(20, 0.9, 0.5)
    points["experts"] = np.arange(len(points))
    points["seconds"] += 0.25e-6 * points["experts"]
    assert fit_law("moe_layer", "bf16", points, H100).each_us == pytest.approx(0.25, rel=1e-2)


def test_law_with_a_given_fixed_time_keeps_it():
    fit = fit_law("mla", "bf16", points_of(12.5, 0.8, 0.6), H100, fixed_us=3.0)
    assert fit.fixed_us == 3.0


def test_law_of_points_above_the_peak_stays_below_it():
    points = points_of(5, 1.0, 1.0)
    points["seconds"] *= 0.8
    fit = fit_law("gemm", "bf16", points, H100)
    assert fit.hbm_share <= 1 and fit.peak_share <= 1


def test_law_without_operations_has_no_peak():
    fit = fit_law("all_reduce", "8", points_of(5, 0.05, 0.5).assign(flops=0.0), H100)
    assert fit.peak_share is None
    assert fit.moving_seconds(H100, 1e6, 0) == pytest.approx(1e6 / (fit.hbm_share * 3.35e12))


@pytest.mark.parametrize("gpu", FITTED)
@given(size=st.floats(0, 1e12), flops=st.floats(0, 1e16), experts=st.floats(0, 1000))
def test_no_fitted_time_is_below_the_roofline(gpu, size, flops, experts):
    spec = GPUS[gpu]
    for fit in COMMITTED[gpu].fits:
        done = flops if fit.peak_share else 0.0
        bound = max(size / (spec.hbm_gb_per_s * 1e9), done / (spec.peak_tflops * 1e12))
        assert fit.seconds(spec, size, done, experts) >= bound * (1 - 1e-12)


@pytest.mark.parametrize(("tokens", "experts", "top_k"), [(1, 8, 2), (3, 8, 2), (16, 128, 8), (20, 128, 8), (7, 60, 4)])
def test_balanced_experts_equal_the_stride_routing(tokens, experts, top_k):
    """The collector's rule: the i-th choice of a token is i strides further, tokens are spread over a stride."""
    stride = math.ceil(experts / top_k)
    chosen = {
        int(token + i * stride if tokens >= stride else token * stride / tokens + i * stride) % experts
        for token in range(tokens)
        for i in range(top_k)
    }
    assert balanced_experts(tokens, experts, top_k) == len(chosen)


@pytest.mark.parametrize(
    ("tokens", "experts", "top_k", "sampled"),
    [
        *[(1, 128, 8, 8.0), (4, 128, 8, 31.8), (16, 128, 8, 65.2), (64, 128, 8, 115.7)],
        *[(1, 256, 8, 8.0), (4, 256, 8, 32.0), (16, 256, 8, 97.2), (64, 256, 8, 193.5)],
    ],
)
def test_power_law_experts_equal_the_collectors(tokens, experts, top_k, sampled):
    """The numbers were sampled from the collector's own code: notes of T1-544 to T1-559 in the observations."""
    assert power_law_experts(tokens, experts, top_k, 1.01) == pytest.approx(sampled, rel=0.03)


def test_power_law_tokens_keep_their_sum_and_their_most():
    for counts in ([9, 0, 0, 0], [3, 3, 3, 3], [0, 0, 0, 1], [4, 4, 1, 1]):
        found = _balanced_out(np.array(counts), 4, 8)
        assert found.sum() == 8 and found.max() <= 4 and found.min() >= 0


@pytest.mark.parametrize("gpu", FITTED)
def test_committed_fits_have_every_operator_and_its_source(gpu):
    operators = read_operators(FOLDER, gpu)
    assert {fit.kind for fit in operators.fits} == set(KINDS)
    assert operators.provenance["commit"] == TABLES.commit
    assert operators.provenance["licence"] == "Apache-2.0"
    listed = {file.path: file.sha256 for file in TABLES.files}
    assert operators.provenance["files"].items() <= listed.items()
    assert len(operators.provenance["files"]) == len(POINTS)


def test_unknown_format_borrows_the_nearest_in_bits():
    operators = read_operators(FOLDER, "H100-80GB")
    assert operators.fit("moe_layer", "mxfp4").format == "int4_group128"
    assert operators.fit("moe_layer", "bf16").format == "bf16"
    assert operators.fit("gemm", "fp8_block128").format == "fp8_block128"
    assert operators.fit("all_reduce", "16").format == "8"


def test_gpu_without_fits_has_none():
    assert read_operators(FOLDER, "RTX4090-24GB") is None


@pytest.mark.parametrize(
    "content", ['{"gpu": "A"}', "[]", '{"gpu": "B", "fits": []}', '{"gpu": "A", "fits": [{"x": 1}]}']
)
def test_damaged_fits_are_refused_in_one_line(tmp_path, content):
    (tmp_path / "A.json").write_text(content)
    with pytest.raises(UserError, match="Fit it again"):
        read_operators(tmp_path, "A")


def tables_of(gpu: str) -> dict | None:
    """Return the paths of the tables of a GPU by operator, where they are available locally."""
    paths = located("aiconfigurator-operators", TABLES, data_folders())
    if paths is None:
        return None
    return {name: next(p for p in paths if f"/{FITTED[gpu]}/{name}/vllm/" in p.as_posix()) for name in POINTS}


@pytest.mark.parametrize("gpu", FITTED)
def test_fits_of_the_tables_are_those_committed(gpu):
    if (tables := tables_of(gpu)) is None:
        pytest.skip("the tables are not available locally: set PROPHET_DATA")
    committed = read_operators(FOLDER, gpu)
    again = json.loads(to_json(fit_operators(gpu, GPUS[gpu], tables, committed.provenance)))
    for fit in committed.fits:
        (found,) = [Fit(**f) for f in again["fits"] if (f["kind"], f["format"]) == (fit.kind, fit.format)]
        assert found.fixed_us == pytest.approx(fit.fixed_us, rel=1e-3)
        assert found.hbm_share == pytest.approx(fit.hbm_share, rel=1e-3)
        assert found.left_out_mean_error == pytest.approx(fit.left_out_mean_error, rel=1e-2)
