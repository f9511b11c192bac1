"""LaTeX: tables, macros for quoted numbers, figure environments, and the paper where TeX is installed."""

TEX_TABLE1, TEX_TABLE2, TEX_TABLE3, TEX_TABLE4 = (f"paper/generated/{{at}}table{n}.tex" for n in range(1, 5))
FIGURES_TEX = "paper/generated/{at}figures.tex"
NUMBERS_TEX = "paper/generated/numbers.tex"
HEADLINES = "results/headlines.txt"

LATEX = everywhere("paper/generated/{at}table{n}.tex", n=range(1, 5)) + everywhere(FIGURES_TEX) + [NUMBERS_TEX]
TEX_IS_INSTALLED = shutil.which("latexmk") is not None
# The text speaks of both scenarios, and of the calibrated one first.
TOLD_IN_PAPER = {"calibrated": "", "reported": "reported/"}
PAPER_IS_TOLD = TOLD_IN_PAPER.items() <= PLACES.items()
PAPER = ["paper/main.pdf"] if TEX_IS_INSTALLED and PAPER_IS_TOLD else []
HOW_TO_GET_TEX = (
    "paper/main.pdf was left out: latexmk is not installed. To get it: apt-get install latexmk "
    "texlive-latex-recommended texlive-fonts-recommended texlive-science texlive-latex-extra"
)


rule latex_tables:
    """Typeset tables 1-4 with booktabs and siunitx."""
    input:
        code=code("workflow/scripts/latex_tables.py"),
        table1=TABLE1,
        table2=TABLE2,
        table3=TABLE3,
        table4=TABLE4,
    output:
        table1_tex=TEX_TABLE1,
        table2_tex=TEX_TABLE2,
        table3_tex=TEX_TABLE3,
        table4_tex=TEX_TABLE4,
        prov=sidecars(TEX_TABLE1, TEX_TABLE2, TEX_TABLE3, TEX_TABLE4),
    log:
        "logs/{at}latex_tables.log",
    benchmark:
        "benchmarks/{at}latex_tables.tsv"
    conda:
        "../../envs/analysis.yaml"
    params:
        files=files,
        parameters=latex_table_parameters,
    shell:
        JOB


rule numbers:
    """Collect the numbers that the text quotes as LaTeX macros, and the lines that end a build."""
    input:
        code=code("workflow/scripts/numbers.py"),
        records=everywhere(RECORD),
        gained=gained_by_default,
        prefill=PREFILL_TABLE,
        rules=RULES_TABLE,
        sets=[SETS_TABLE] if PREDICTED else [],
    output:
        macros=NUMBERS_TEX,
        headlines=HEADLINES,
        prov=sidecars(NUMBERS_TEX, HEADLINES),
    log:
        "logs/numbers.log",
    benchmark:
        "benchmarks/numbers.tsv"
    conda:
        "../../envs/analysis.yaml"
    params:
        files=files,
        parameters=numbers_parameters,
    shell:
        JOB


rule figures_tex:
    """Write the figure environments with their captions."""
    input:
        code=code("workflow/scripts/figures_tex.py"),
    output:
        tex=FIGURES_TEX,
        prov=sidecars(FIGURES_TEX),
    log:
        "logs/{at}figures_tex.log",
    benchmark:
        "benchmarks/{at}figures_tex.tsv"
    conda:
        "../../envs/analysis.yaml"
    params:
        files=files,
        parameters=figures_tex_parameters,
    shell:
        JOB


rule paper:
    """Compile the paper from its text and the generated tables, numbers and figures."""
    input:
        code=code("workflow/scripts/paper.py"),
        main="paper/main.tex",
        generated=LATEX + [f"figures/{at}{name}.pdf" for at in PLACES.values() for name in paper_figures(at)],
    output:
        pdf="paper/main.pdf",
        prov=sidecars("paper/main.pdf"),
    log:
        "logs/paper.log",
    benchmark:
        "benchmarks/paper.tsv"
    conda:
        "../../envs/paper.yaml"
    params:
        files=files,
        parameters=NONE,
    shell:
        JOB
