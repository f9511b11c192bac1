"""Which batch sizes do real arrivals make, and what does Prophet save at these?

REQUIRED INPUTS: resources/arrivals/, models, GPUs, an engine, fitted operators, the fitted routing. OUTPUTS:
tables/table20_dynamic_batching.csv, tables/data/batch_distribution.csv, tables/data/batching_claims.csv,
figures/dynamic_batching.
"""

from prophet_moe.catalog import load_gpus
from prophet_moe.catalog.engine import find_engine
from prophet_moe.inventory import located_all
from prophet_moe.routing.datasets import check_files, how_to_get
from prophet_moe.serving.arrivals import READERS
from studies.dynamic_batching.selection import model_files
from studies.dynamic_batching.study import RECORDED_FILES
from studies.dynamic_batching.study import STUDY as DYNAMIC_BATCHING

offer(DYNAMIC_BATCHING)

ARRIVAL_FOLDER = Path("resources/arrivals")
ARRIVAL_DATA = {name: KNOWN_DATA.datasets[name] for name in dict.fromkeys(data for data, _, _ in READERS.values())}
SERVED = {each.model: each.gpu for each in settings("dynamic_batching").served}

with exit_on_user_error():
    load_gpus(GPU_FILE, list(SERVED.values()))
    find_engine(settings("dynamic_batching").engine, ENGINE_FOLDER)
    where = Sources(config, MERGED_FILES).of(("studies", "dynamic_batching", "served"))
    SERVED_FILES = model_files(settings("dynamic_batching").served, MODEL_FOLDER, where)


def dynamic_batching_shown(wildcards):
    """Every run, beside its distribution of batches."""
    return {"runs": path_of("table20_dynamic_batching")}


def dynamic_batching_others(wildcards):
    """What the figure shows besides that distribution."""
    return [path_of("table20_dynamic_batching")]


DRAWN["dynamic_batching"] = Drawing(
    path_of("batch_distribution"), dynamic_batching_shown, dynamic_batching_others, of_scenario=True
)


def dynamic_batching_parameters(wildcards):
    """Parameters of table 20, in addition to its files."""
    return as_json({"dynamic_batching": plain(settings("dynamic_batching")), "scenario": plain(DEFAULT)})


def recorded_arrivals(wildcards):
    """The files of recorded arrivals; one line says how to get those that are not here."""
    found = located_all(ARRIVAL_DATA)
    with exit_on_user_error():
        for name, paths in found.items():
            if paths is None:
                raise UserError(name, "is not here", how_to_get(name, ARRIVAL_DATA[name]))
            check_files(ARRIVAL_DATA[name], paths)
    return [found[data][number] for data, number, _ in READERS.values()]


def record_arrivals_parameters(wildcards):
    """Where each trace lies, whose it is, and the parameters of the study."""
    sources = {
        name: {
            "path": str(path),
            "dataset": data,
            "sha256": ARRIVAL_DATA[data].files[number].sha256,
            "licence": ARRIVAL_DATA[data].licence,
            "citation": ARRIVAL_DATA[data].citation,
        }
        for (name, (data, number, _)), path in zip(READERS.items(), recorded_arrivals(wildcards), strict=True)
    }
    return as_json(json.loads(dynamic_batching_parameters(wildcards)) | {"sources": sources})


rule dynamic_batching:
    """Serve arrivals by continuous batching, and say which batches come of them and what Prophet saves there."""
    input:
        code=code("workflow/studies/dynamic_batching/compute.py"),
        laws=[ARRIVAL_FOLDER / f"{name}.json" for name in READERS],
        recorded=[ARRIVAL_FOLDER / name for name in RECORDED_FILES.values()],
        recorded_parameters=ARRIVAL_FOLDER / "recorded.json",
        models=SERVED_FILES,
        gpus=GPU_FILE,
        names=MODEL_NAMES,
        engine=ENGINE_FOLDER / f"{settings('dynamic_batching').engine}.yaml",
        variations=variations_of(DEFAULT),
        operators=OPERATOR_FILES,
    output:
        table=table("table20_dynamic_batching"),
        distribution=table("batch_distribution"),
        claims=table("batching_claims"),
        prov=sidecars(path_of("table20_dynamic_batching"), path_of("batch_distribution"), path_of("batching_claims")),
    log:
        "logs/dynamic_batching.log",
    benchmark:
        "benchmarks/dynamic_batching.tsv"
    conda:
        "../../../envs/analysis.yaml"
    params:
        files=files,
        parameters=dynamic_batching_parameters,
    shell:
        JOB


# No output that Snakemake would look for: it runs whenever it is asked for.
rule record_arrivals:
    """Fit laws to the recorded arrivals that are here, serve these, and keep both in resources/arrivals/."""
    input:
        code=code("workflow/studies/dynamic_batching/record_arrivals.py"),
        sources=recorded_arrivals,
        models=SERVED_FILES,
        gpus=GPU_FILE,
        names=MODEL_NAMES,
        engine=ENGINE_FOLDER / f"{settings('dynamic_batching').engine}.yaml",
        variations=variations_of(DEFAULT),
        operators=OPERATOR_FILES,
    log:
        "logs/record_arrivals.log",
    conda:
        "../../../envs/analysis.yaml"
    params:
        files=files,
        parameters=record_arrivals_parameters,
    shell:
        JOB
