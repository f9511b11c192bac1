"""Check what was built."""


# No benchmark: Snakemake takes its file for an output, and would check but once.
rule verify:
    """Recompute every hash, compare with the committed outputs within tolerances, print a table of PASS and FAIL."""
    input:
        code=code("workflow/scripts/verify.py"),
        outputs=[*DATA, *HEADLINE, ROUTING_TABLE] + CALIBRATION + HARDWARE + SIMULATION + TABLES + FIGURES + LATEX,
    log:
        "logs/verify.log",
    conda:
        "../../envs/analysis.yaml"
    shell:
        "python {input.code[0]} {input.outputs:q} 2>&1 | tee {log:q}"
