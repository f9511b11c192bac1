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


include: "workflow/rules/collect.smk"
include: "workflow/rules/traces.smk"
include: "workflow/rules/capacity.smk"


for study in STUDIES:

    include: f"workflow/studies/{study}/study.smk"


include: "workflow/rules/figures.smk"
include: "workflow/rules/paper.smk"
include: "workflow/rules/model_pages.smk"
include: "workflow/rules/crate.smk"
include: "workflow/rules/report_page.smk"
include: "workflow/rules/verify.smk"


report: "workflow/report/workflow.rst"


# Captions (workflow/report/*.rst) read the resolved settings, and the captions of the studies.
config.update(EXPERIMENT.model_dump(mode="json"))
config["titles"] = {at: EXPERIMENT.scenarios[name].title for name, at in SCENARIO_DIRS.items()}
config["headlines"] = Path(HEADLINES).read_text() if Path(HEADLINES).exists() else "Nothing is built yet."
with exit_on_user_error():
    config["table_captions"], config["figure_captions"] = captions(TABLES.values()), captions(FIGURES.values())


rule all:
    """Everything: data, tables, figures, notebooks and LaTeX of every scenario, and the paper where TeX is installed."""
    default_target: True
    input:
        TARGETS,
        PAPER,


rule essentials:
    """Figures 1-5 and tables 1-4 of every scenario, their data, notebooks and LaTeX, without the studies around them."""
    input:
        ESSENTIALS,


onstart:
    for line in notes():
        print(line)


onsuccess:
    print(messages.summary(SCENARIO_DIRS, Path(HEADLINES), EXPERIMENT.name, RUN_FOLDER))
    if not TEX_IS_INSTALLED:
        print(messages.HOW_TO_GET_TEX)


onerror:
    for line in messages.failures(Path("logs"), STARTED, RUN_FOLDER or Path()):
        print(line, file=sys.stderr)
