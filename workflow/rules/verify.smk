"""Check what was built.

REQUIRED INPUTS: every output of the build. OUTPUTS: none; it prints a table.
"""


# No benchmark: Snakemake takes its file for an output, and would check but once.
rule verify:
    """Recompute every hash, compare with the committed outputs within tolerances, print a table of PASS and FAIL."""
    input:
        code=code("workflow/scripts/verify.py"),
        outputs=TARGETS,
    log:
        "logs/verify.log",
    conda:
        "../../envs/analysis.yaml"
    shell:
        # -P: the folder of scripts is not searched for modules, or numbers.py would hide Python's own.
        "python -P {input.code[0]} {input.outputs:q} 2>&1 | tee {log:q}"
