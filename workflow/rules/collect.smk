"""Collect routing traces afresh: the corpus, small MoE models trained on it, and the traces of these.

Runs only with config/overlays/collect.yaml or the like; otherwise the recorded traces in resources/traces/ are used.
REQUIRED INPUTS: config/collect.yaml, the network. OUTPUTS: results/collect/, results/traces/, results/predictors/.
"""

WHEELS = [f"results/collect/corpus/{package.file}" for package in PLAN.corpus.packages.values()]


def corpus_parameters(wildcards):
    """The packages of the corpus."""
    return as_json({name: package.sha256 for name, package in PLAN.corpus.packages.items()})


def model_parameters(wildcards):
    """All that a trained model and its prompts depend on."""
    model = asdict(PLAN.models[wildcards.trace])
    return as_json({"corpus": asdict(PLAN.corpus), "vocabulary": PLAN.vocabulary, "model": model})


def trace_options(wildcards):
    """Options of the collector for one of the plan's models."""
    plan = PLAN.models[wildcards.trace].trace
    return (
        f"--decode text --decode-tokens {plan.decode_tokens} --batch {plan.batch} --hidden {plan.hidden_tokens}"
        f" --dtype float32 --licence Apache-2.0"
    )


rule corpus:
    """Download the packages of the corpus: the one step that uses the network."""
    input:
        code=code("workflow/prophet_moe/collect/corpus.py"),
    output:
        wheels=WHEELS,
    log:
        "logs/corpus.log",
    benchmark:
        "benchmarks/corpus.tsv"
    conda:
        "../../envs/gpu.yaml"
    params:
        plan=EXPERIMENT.collect.plan,
        packages=corpus_parameters,
        python=EXPERIMENT.collect.python,
    shell:
        "{params.python} -m prophet_moe.collect corpus --plan {params.plan:q} > {log:q} 2>&1"


rule train:
    """Train a small MoE language model; a training that was stopped goes on from its checkpoint."""
    input:
        code=code("workflow/prophet_moe/collect/train.py"),
        wheels=WHEELS,
    output:
        training="results/collect/{trace}/training.json",
        weights="results/collect/{trace}/model.safetensors",
        config="results/collect/{trace}/config.json",
        prompts="results/collect/{trace}/prompts.jsonl",
    log:
        "logs/train/{trace}.log",
    benchmark:
        "benchmarks/train/{trace}.tsv"
    conda:
        "../../envs/gpu.yaml"
    resources:
        gpu=1,
    params:
        plan=EXPERIMENT.collect.plan,
        model=model_parameters,
        python=EXPERIMENT.collect.python,
    shell:
        "{params.python} -m prophet_moe.collect train {wildcards.trace:q} --plan {params.plan:q} > {log:q} 2>&1"


rule collect_trace:
    """Record which experts the model chooses on held-out text; a recording that was stopped goes on."""
    input:
        code=code("workflow/prophet_moe/collect/trace.py"),
        weights="results/collect/{trace}/model.safetensors",
        config="results/collect/{trace}/config.json",
        prompts="results/collect/{trace}/prompts.jsonl",
    output:
        trace="results/traces/{trace}/trace.parquet",
        metadata="results/traces/{trace}/metadata.json",
        sums="results/traces/{trace}/SHA256SUMS",
    log:
        "logs/collect_trace/{trace}.log",
    benchmark:
        "benchmarks/collect_trace/{trace}.tsv"
    conda:
        "../../envs/gpu.yaml"
    resources:
        gpu=1,
    params:
        options=trace_options,
        python=EXPERIMENT.collect.python,
    shell:
        "{params.python} -m prophet_moe.collect trace results/collect/{wildcards.trace}"
        " --prompts {input.prompts:q} --out results/traces/{wildcards.trace} {params.options}"
        " > {log:q} 2>&1"


rule train_predictor:
    """Train Prophet's predictor on a trace collected afresh; a training that was stopped goes on."""
    input:
        code=code("workflow/prophet_moe/collect/predictor.py"),
        plan="config/predictor.yaml",
        files=[f"results/traces/{{trace}}/{name}" for name in TRACE_FILES],
    output:
        files=[f"results/predictors/{{trace}}/{name}" for name in PREDICTOR_FILES],
    log:
        "logs/train_predictor/{trace}.log",
    benchmark:
        "benchmarks/train_predictor/{trace}.tsv"
    conda:
        "../../envs/gpu.yaml"
    resources:
        gpu=1,
    params:
        python=EXPERIMENT.collect.python,
    shell:
        "{params.python} -m prophet_moe.collect predictor results/traces/{wildcards.trace}"
        " --plan {input.plan:q} --out results/predictors/{wildcards.trace}"
        " > {log:q} 2>&1"
