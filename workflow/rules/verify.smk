"""Check what was built."""


rule verify:
    """Recompute every hash, compare with the committed outputs within tolerances, print a table of PASS and FAIL."""
    input:
        code=code("workflow/scripts/verify.py"),
        outputs=[*DATA, ROUTING_TABLE] + CALIBRATION + HARDWARE + SIMULATION + TABLES + FIGURES + LATEX,
    log:
        "logs/verify.log",
    benchmark:
        "benchmarks/verify.tsv"
    conda:
        "../../envs/analysis.yaml"
    shell:
        "python {input.code[0]} {input.outputs:q} 2>&1 | tee {log:q}"
