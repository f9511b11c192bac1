"""Figures 1-5 of every scenario, figures about traces and of simulations: one notebook each, run with Papermill."""

FIGURE_NAMES = (
    "figure1_memory_breakdown",
    "figure2_kv_extension_by_model",
    "figure3_context_scaling",
    "figure4_batch_context_tradeoff",
    "figure5_expert_count_analysis",
)

TRACE_FIGURES = {
    "routing_statistics": ROUTING_TABLE,
    "routing_law": LAW_RESIDUALS,
    "prediction": PREDICTION_TABLE,
    "comparative_evaluation": COMPARATIVE_TABLE,
    "expert_deduplication": DEDUPLICATION_TABLE,
    "layer_detail": LAYER_TABLE,
    "strategy_sweeps": SWEEP_TABLE,
    "frontier": FRONTIER_TABLE,
}

# A figure is drawn where the table that it shows is made.
TRACE_FIGURES_SHOWN = [
    name for name, table in TRACE_FIGURES.items() if table in (ROUTING_TABLE, *CALIBRATION, *SIMULATION)
]

ESSENTIAL_FIGURES = everywhere("figures/{at}{figure}.{format}", figure=FIGURE_NAMES, format=["pdf", "png"])
FIGURES = ESSENTIAL_FIGURES + expand("figures/{figure}.{format}", figure=TRACE_FIGURES_SHOWN, format=["pdf", "png"])


wildcard_constraints:
    figure="|".join((*FIGURE_NAMES, *TRACE_FIGURES)),


rule figure:
    """Draw a figure by running its notebook; keep the executed notebook and its HTML page."""
    input:
        code=figure_code,
        notebook=figure_notebook,
        record=figure_record,
        also=figure_also,
    output:
        pdf="figures/{at}{figure}.pdf",
        png=report(
            "figures/{at}{figure}.png",
            caption="../report/figure.rst",
            category="Figures",
            labels={"item": "{figure}", "place": "{at}"},
        ),
        executed="results/notebooks/{at}{figure}.ipynb",
        page="results/notebooks/{at}{figure}.html",
        prov=sidecars(
            "figures/{at}{figure}.pdf",
            "figures/{at}{figure}.png",
            "results/notebooks/{at}{figure}.ipynb",
            "results/notebooks/{at}{figure}.html",
        ),
    log:
        "logs/{at}{figure}.log",
    benchmark:
        "benchmarks/{at}{figure}.tsv"
    conda:
        "../../envs/analysis.yaml"
    params:
        files=files,
        parameters=figure_parameters,
    shell:
        JOB
