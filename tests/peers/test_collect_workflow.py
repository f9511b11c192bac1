"""The quick overlay, end to end: a small model trained on real text, its trace recorded, statistics and figure made."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from prophet_moe.provenance.tracked import tracked_files
from prophet_moe.routing import store

ROOT = Path(__file__).parents[2]
SNAKEMAKE = ROOT / ".venv/bin/snakemake"
NAME = "quick-2x8-top2"


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A copy of what git would commit."""
    folder = tmp_path_factory.mktemp("quick") / "project"
    for name in tracked_files(ROOT, with_new=True):
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((ROOT / name).read_bytes())
    return folder


def snakemake(project: Path, *arguments: str) -> str:
    """Run the overlay in the copy; its own library comes first."""
    overlay = project / "mine.yaml"
    overlay.write_text((project / "config/overlays/collect_quick.yaml").read_text() + f"  python: {sys.executable}\n")
    environment = os.environ | {
        "PYTHONPATH": str(project / "workflow"),
        "PATH": f"{SNAKEMAKE.parent}{os.pathsep}{os.environ['PATH']}",
    }
    command = [SNAKEMAKE, *arguments, "--cores", "2", "--configfile", "mine.yaml"]
    done = subprocess.run(
        command, cwd=project, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.skipif(not SNAKEMAKE.exists(), reason="needs the main environment: make")
def test_the_quick_overlay_collects_afresh(project):
    figure = "figures/routing_statistics.png"
    (project / figure).unlink(missing_ok=True)
    snakemake(project, figure)
    trace = store.read_trace(project / "results/traces" / NAME, NAME)
    assert (trace.router.experts, trace.router.top_k, len(trace.router.layers)) == (8, 2, 2)
    assert len(trace) == 2 * 6 * (16 + 48)
    training = json.loads((project / "results/collect" / NAME / "training.json").read_text())
    for domain, nats in training["nats_per_held_out_token"].items():
        assert nats["loss"] < nats["unigram_entropy"], domain
    table = (project / "tables/data/routing_statistics.csv").read_text()
    assert f"{NAME},consecutive_overlap" in table
    assert (project / figure).stat().st_size > 0
    assert "Nothing to be done" in snakemake(project, figure)
    gained = "tables/table6_prediction.csv"
    snakemake(project, gained)
    assert f"\n{NAME},8,2,1,2," in (project / gained).read_text()
