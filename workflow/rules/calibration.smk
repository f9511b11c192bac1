"""From routing traces to what scenario `calibrated` runs on: the law for u(B), and how good prediction is."""

LAW_FITS = "tables/data/routing_law_fits.csv"
LAW_RESIDUALS = "tables/data/routing_law_residuals.csv"
LAW_TRANSFER = "tables/data/routing_law_transfer.csv"
VARIATION_TABLE = "tables/data/routing_variation.csv"
COUNTS_TABLE = "results/routing/counts_variation.csv"
TABLE5 = "tables/table5_routing_exponents.csv"
PREDICTION_TABLE = "tables/data/prediction.csv"
PREDICTION_BY_DOMAIN = "tables/data/prediction_by_domain.csv"
TABLE6 = "tables/table6_prediction.csv"
SETS_TABLE = "tables/data/predicted_sets.csv"

CALIBRATION = [LAW_FITS, LAW_RESIDUALS, LAW_TRANSFER, VARIATION_TABLE, TABLE5]
CALIBRATION += [PREDICTION_TABLE, PREDICTION_BY_DOMAIN, TABLE6, SETS_TABLE] if PREDICTED else []


rule fit_law:
    """Fit every law for u(B) to one trace, and judge each on held-out sequences."""
    input:
        code=code("workflow/scripts/fit_law.py"),
        files=trace_files,
    output:
        fits="results/routing/{described}/law_fits.csv",
        residuals="results/routing/{described}/law_residuals.csv",
        prov=sidecars("results/routing/{described}/law_fits.csv", "results/routing/{described}/law_residuals.csv"),
    log:
        "logs/routing/{described}/fit_law.log",
    benchmark:
        "benchmarks/routing/{described}/fit_law.tsv"
    conda:
        "../../envs/analysis.yaml"
    params:
        files=files,
        parameters=described_parameters,
    shell:
        JOB


rule measure_discrimination:
    """Measure how well the predictor of one trace tells chosen experts from others, on sequences not learned from."""
    input:
        code=code("workflow/scripts/measure_discrimination.py"),
        files=trace_files,
        predictor=predictor_files,
    output:
        discrimination="results/routing/{described}/discrimination.csv",
        prov=sidecars("results/routing/{described}/discrimination.csv"),
    log:
        "logs/routing/{described}/measure_discrimination.log",
    benchmark:
        "benchmarks/routing/{described}/measure_discrimination.tsv"
    conda:
        "../../envs/analysis.yaml"
    params:
        files=files,
        parameters=NONE,
    shell:
        JOB


rule judge_predictors:
    """Judge Prophet's predictor of one trace beside predictors that count, on held-out sequences."""
    input:
        code=code("workflow/scripts/judge_predictors.py"),
        files=trace_files,
        predictor=predictor_files,
    output:
        judgements="results/routing/{described}/prediction.csv",
        prov=sidecars("results/routing/{described}/prediction.csv"),
    log:
        "logs/routing/{described}/judge_predictors.log",
    benchmark:
        "benchmarks/routing/{described}/judge_predictors.tsv"
    conda:
        "../../envs/analysis.yaml"
    params:
        files=files,
        parameters=described_parameters,
    shell:
        JOB


rule routing_law:
    """Put the fits to all traces into one table, and say how well traces of other models predict each."""
    input:
        code=code("workflow/scripts/routing_law.py"),
        of_fits=of_traces(FITTED, "law_fits"),
        of_residuals=of_traces(FITTED, "law_residuals"),
    output:
        fits=data_report(LAW_FITS, "routing_law_fits"),
        residuals=data_report(LAW_RESIDUALS, "routing_law_residuals"),
        transfer=data_report(LAW_TRANSFER, "routing_law_transfer"),
        prov=sidecars(LAW_FITS, LAW_RESIDUALS, LAW_TRANSFER),
    log:
        "logs/routing_law.log",
    benchmark:
        "benchmarks/routing_law.tsv"
    conda:
        "../../envs/analysis.yaml"
    params:
        files=files,
        parameters=NONE,
    shell:
        JOB


rule routing_variation:
    """Pool the fits over traces for the models that have none of their own."""
    input:
        code=code("workflow/scripts/routing_variation.py"),
        fits=LAW_FITS,
        models=[MODEL_FOLDER / f"{name}.yaml" for name in MODELS],
    output:
        variation=data_report(VARIATION_TABLE, "routing_variation"),
        exponents=data_report(TABLE5, "table5_routing_exponents"),
        prov=sidecars(VARIATION_TABLE, TABLE5),
    log:
        "logs/routing_variation.log",
    benchmark:
        "benchmarks/routing_variation.tsv"
    conda:
        "../../envs/analysis.yaml"
    params:
        files=files,
        parameters=as_json({"reported_exponents": EXPERIMENT.reported_exponents}),
    shell:
        JOB


rule counts_variation:
    """Fit the law for u(B) to the counts of the models that have some."""
    input:
        code=code("workflow/scripts/counts_variation.py"),
        counts=[TRACE_FOLDER / name / "counts.npz" for name in EXPERIMENT.counts],
        models=[MODEL_FOLDER / f"{name}.yaml" for name in MODELS],
    output:
        variation=COUNTS_TABLE,
        prov=sidecars(COUNTS_TABLE),
    log:
        "logs/counts_variation.log",
    benchmark:
        "benchmarks/counts_variation.tsv"
    conda:
        "../../envs/analysis.yaml"
    params:
        files=files,
        parameters=NONE,
    shell:
        JOB


rule prediction:
    """Put the judgements of all traces into one table, and the gain of Prophet's predictor into another."""
    input:
        code=code("workflow/scripts/prediction.py"),
        of_judgements=[f"results/routing/{name}/prediction.csv" for name in PREDICTED],
        predictors=[predictor_folder(name) / "metadata.json" for name in PREDICTED],
        latency="resources/predictors/latency.csv",
    output:
        judgements=data_report(PREDICTION_TABLE, "prediction"),
        summary=data_report(TABLE6, "table6_prediction"),
        by_domain=data_report(PREDICTION_BY_DOMAIN, "prediction_by_domain"),
        prov=sidecars(PREDICTION_TABLE, TABLE6, PREDICTION_BY_DOMAIN),
    log:
        "logs/prediction.log",
    benchmark:
        "benchmarks/prediction.tsv"
    conda:
        "../../envs/analysis.yaml"
    params:
        files=files,
        parameters=NONE,
    shell:
        JOB


rule size_predicted_sets:
    """Count how many experts the predictor of one trace must name to name all that a layer-step needs."""
    input:
        code=code("workflow/scripts/size_predicted_sets.py"),
        files=trace_files,
        predictor=predictor_files,
    output:
        sets="results/routing/{described}/predicted_sets.csv",
        prov=sidecars("results/routing/{described}/predicted_sets.csv"),
    log:
        "logs/routing/{described}/size_predicted_sets.log",
    benchmark:
        "benchmarks/routing/{described}/size_predicted_sets.tsv"
    conda:
        "../../envs/analysis.yaml"
    params:
        files=files,
        parameters=described_parameters,
    shell:
        JOB


rule predicted_sets:
    """Put the sizes of predicted sets of all traces into one table."""
    input:
        code=code("workflow/scripts/predicted_sets.py"),
        sets=[f"results/routing/{name}/predicted_sets.csv" for name in PREDICTED],
    output:
        table=data_report(SETS_TABLE, "predicted_sets"),
        prov=sidecars(SETS_TABLE),
    log:
        "logs/predicted_sets.log",
    benchmark:
        "benchmarks/predicted_sets.tsv"
    conda:
        "../../envs/analysis.yaml"
    params:
        files=files,
        parameters=NONE,
    shell:
        JOB
