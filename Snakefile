"""Prophet KV-extension artifact: figures, tables, LaTeX and provenance from configuration files.

Main command: snakemake --cores 8
"""

from pathlib import Path

from snakemake.utils import min_version

from prophet_moe.validation import read_yaml
from prophet_moe.errors import exit_on_user_error

min_version("9.6")

CONFIG_FILES = ("config/experiment.yaml", "config/style.yaml")

# Snakemake's own message for an unreadable configuration file names neither the file nor the line.
with exit_on_user_error():
    for file in CONFIG_FILES:
        read_yaml(Path(file))


configfile: CONFIG_FILES[0]
configfile: CONFIG_FILES[1]


include: "workflow/rules/common.smk"


# A run by name works in a folder of its own, with the same paths below it.
if RUN_FOLDER:

    workdir: str(RUN_FOLDER)


include: "workflow/rules/traces.smk"
include: "workflow/rules/measured.smk"
include: "workflow/rules/replayed.smk"
include: "workflow/rules/parameters.smk"
include: "workflow/rules/messages.smk"
include: "workflow/rules/collect.smk"
include: "workflow/rules/routing.smk"
include: "workflow/rules/calibration.smk"
include: "workflow/rules/capacity.smk"
include: "workflow/rules/hardware.smk"
include: "workflow/rules/simulation.smk"
include: "workflow/rules/tables.smk"
include: "workflow/rules/figures.smk"
include: "workflow/rules/paper.smk"
include: "workflow/rules/verify.smk"


report: "workflow/report/workflow.rst"


rule all:
    """Everything: data, tables, figures, notebooks and LaTeX of every scenario, and the paper where TeX is installed."""
    default_target: True
    input:
        DATA,
        HEADLINE,
        ROUTING_TABLE,
        CALIBRATION,
        HARDWARE,
        SIMULATION,
        TABLES,
        FIGURES,
        LATEX,
        PAPER,


rule essentials:
    """Figures 1-5 and tables 1-4 of every scenario, their data, notebooks and LaTeX, without the studies around them."""
    input:
        DATA,
        ESSENTIAL_TABLES,
        ESSENTIAL_FIGURES,
        LATEX,


onstart:
    for line in notes():
        print(line)


onsuccess:
    print(summary())


onerror:
    for line in failures():
        print(line, file=sys.stderr)
