"""How well can the experts of the next layers be predicted, and what does learning add to counting?

REQUIRED INPUTS: traces with a predictor each, or what was recorded of them. OUTPUTS: tables/data/prediction.csv,
prediction_by_domain.csv, predicted_sets.csv, tables/table6_prediction.csv, figures/prediction.
"""

from studies.prediction.study import STUDY as PREDICTION

NOTES.append(HERE.without_predictor)
RECORDED_KINDS.extend(["prediction", "predicted_sets", "discrimination"])
if HERE.predicted:
    offer(PREDICTION)


def predicted(wildcards):
    """The traces whose experts are predicted."""
    return {"traces": HERE.titles(HERE.predicted)}


DRAWN["prediction"] = Drawing(path_of("prediction"), predicted)


rule evaluate_predictors:
    """Evaluate Prophet's predictor of one trace, and predictors that only count, on held-out sequences."""
    input:
        code=code("workflow/studies/prediction/evaluate_predictors.py"),
        files=trace_files,
        predictor=predictor_files,
    output:
        judgements="results/traces/{trace}/prediction.csv",
        prov=sidecars("results/traces/{trace}/prediction.csv"),
    log:
        "logs/evaluate_predictors/{trace}.log",
    benchmark:
        "benchmarks/evaluate_predictors/{trace}.tsv"
    conda:
        "../../../envs/analysis.yaml"
    params:
        files=files,
        parameters=trace_parameters,
    shell:
        JOB


rule measure_discrimination:
    """Measure how well the predictor of one trace separates chosen experts from others, on held-out sequences."""
    input:
        code=code("workflow/studies/prediction/measure_discrimination.py"),
        files=trace_files,
        predictor=predictor_files,
    output:
        discrimination="results/traces/{trace}/discrimination.csv",
        prov=sidecars("results/traces/{trace}/discrimination.csv"),
    log:
        "logs/measure_discrimination/{trace}.log",
    benchmark:
        "benchmarks/measure_discrimination/{trace}.tsv"
    conda:
        "../../../envs/analysis.yaml"
    params:
        files=files,
        parameters=NONE,
    shell:
        JOB


rule size_predicted_sets:
    """Count how many experts the predictor of one trace must name to name all that a layer-step needs."""
    input:
        code=code("workflow/studies/prediction/size_predicted_sets.py"),
        files=trace_files,
        predictor=predictor_files,
    output:
        sets="results/traces/{trace}/predicted_sets.csv",
        prov=sidecars("results/traces/{trace}/predicted_sets.csv"),
    log:
        "logs/size_predicted_sets/{trace}.log",
    benchmark:
        "benchmarks/size_predicted_sets/{trace}.tsv"
    conda:
        "../../../envs/analysis.yaml"
    params:
        files=files,
        parameters=trace_parameters,
    shell:
        JOB


rule predicted_sets:
    """Put the sizes of predicted sets of all traces into one table."""
    input:
        code=code("workflow/studies/prediction/predicted_sets.py"),
        sets=HERE.results_of(HERE.predicted, "predicted_sets"),
    output:
        table=table("predicted_sets"),
        prov=sidecars(path_of("predicted_sets")),
    log:
        "logs/predicted_sets.log",
    benchmark:
        "benchmarks/predicted_sets.tsv"
    conda:
        "../../../envs/analysis.yaml"
    params:
        files=files,
        parameters=NONE,
    shell:
        JOB


rule prediction:
    """Put the scores of all traces into one table, and the gain of Prophet's predictor into another."""
    input:
        code=code("workflow/studies/prediction/compute.py"),
        of_judgements=HERE.results_of(HERE.predicted, "prediction"),
        predictors=[HERE.predictor_folder(name) / "metadata.json" for name in HERE.predicted],
        latency="resources/predictors/latency.csv",
    output:
        judgements=table("prediction"),
        summary=table("table6_prediction"),
        by_domain=table("prediction_by_domain"),
        prov=sidecars(*[path_of(name) for name in ("prediction", "table6_prediction", "prediction_by_domain")]),
    log:
        "logs/prediction.log",
    benchmark:
        "benchmarks/prediction.tsv"
    conda:
        "../../../envs/analysis.yaml"
    params:
        files=files,
        parameters=NONE,
    shell:
        JOB
