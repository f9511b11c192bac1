"""The run as an RO-Crate.

REQUIRED INPUTS: every output of the build with its sidecar, CITATION.cff. OUTPUTS: results/crate/ro-crate-metadata.json.
"""

CRATE = "results/crate/ro-crate-metadata.json"


def crate_texts(wildcards):
    """A file of what every rule does, and of the caption of every table and figure by its path.

    Together they are too long for a command line.
    """
    captions = {
        output.path.format(scenario_dir=at): caption(output, at)
        for output in (*TABLES.values(), *FIGURES.values())
        for at in (SCENARIO_DIRS.values() if "{" in output.path else [""])
    }
    path = Path("results/captions/crate.json")
    text = as_json({"captions": captions, "rules": {rule.name: rule.docstring for rule in workflow.rules}})
    if not path.exists() or path.read_text() != text:
        write_text(path, text)
    return path


rule crate:
    """Tell of every output, as an RO-Crate, which job made it, from what and with which parameters."""
    input:
        code=code("workflow/scripts/crate.py"),
        citation="CITATION.cff",
        texts=crate_texts,
        made=TARGETS + PAPER,
    output:
        metadata=CRATE,
        prov=sidecars(CRATE),
    log:
        "logs/crate.log",
    benchmark:
        "benchmarks/crate.tsv"
    conda:
        "../../envs/analysis.yaml"
    params:
        files=files,
        parameters=NONE,
    shell:
        JOB
