"""What every rule owes its reader: one name, a docstring, a log and a benchmark; and every file its inputs, outputs."""

import ast
import re
from pathlib import Path

import pytest

from prophet_moe.provenance.job import rule_of
from tests.conftest import ROOT
from tests.workflow.rules import FILES, RULES, rules_in

WITHOUT_BENCHMARK = ("verify", "record_statistics", "record_arrivals")
"""Rules without output, which run whenever they are asked for: Snakemake would take the benchmark for their output."""
BY_THE_COLLECTOR = [rule.name for rule in rules_in(ROOT / "workflow/rules/collect.smk")]
"""Rules that run a command of `prophet_moe.collect`, whose code is a module of the library."""


def docstring_of(text: str) -> str:
    """The docstring at the beginning of a text; empty where there is none."""
    found = re.match(r'\s*("""(?:.*?)""")', text, re.DOTALL)
    return ast.literal_eval(found[1]) if found else ""


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT / "workflow")))
def test_rule_file_begins_with_its_inputs_and_outputs(file):
    told = docstring_of(file.read_text())
    assert "REQUIRED INPUTS: " in told and re.search(r"\bOUTPUTS:\s", told)


def test_no_two_rules_share_a_name():
    assert sum(len(rules_in(file)) for file in FILES) == len(RULES)


@pytest.mark.parametrize("name", RULES)
def test_rule_has_docstring_log_and_benchmark(name):
    rule = RULES[name]
    assert docstring_of(rule.body).endswith(".")
    assert rule.path("log")
    assert bool(rule.path("benchmark")) == (name not in WITHOUT_BENCHMARK)


@pytest.mark.parametrize("name", RULES)
def test_rule_script_log_and_benchmark_share_a_name(name):
    rule = RULES[name]
    for directive in ("log", "benchmark") if name not in WITHOUT_BENCHMARK else ("log",):
        assert name in re.split(r"[/.]|{\w+}", rule.path(directive))
    if name not in BY_THE_COLLECTOR:
        script = Path(rule.script or f"workflow/scripts/{name}.py")
        assert rule_of(script) == name
        assert (ROOT / script).is_file()


def test_every_script_is_that_of_a_rule():
    scripts = {path.stem for path in (ROOT / "workflow/scripts").glob("*.py")}
    assert scripts <= set(RULES)


def test_snakemake_finds_nothing_else_to_object_to(project):
    """Functions of the wildcards stand beside the rules that use them; Snakemake would have them in another file."""
    found = re.findall(r"^    \* (.+?):?$", project.snakemake("--lint").stdout, re.MULTILINE)
    assert set(found) == {"Mixed rules and functions in same snakefile."}
