"""The declaration of the study of dynamic batching."""

from typing import Annotated

from pydantic import Field, model_validator

from prophet_moe.settings.fields import LARGEST_SECONDS, LARGEST_SEED, Batches, Share, StudySettings
from prophet_moe.study import Figure, Study
from prophet_moe.tables import GPU, MODEL, Table, flag, integer, number, text
from prophet_moe.validation import StrictModel, inconsistent

MOST_INSTANCES = 1024
"""Upper limit of the instances, to catch typing errors."""


class ServedModel(StrictModel):
    """A model, and the GPU that each of its instances has."""

    model: str
    """A file of config/models/ or config/models/current/."""
    gpu: str
    """A GPU of config/gpus.yaml that holds all of its experts."""


class DynamicBatchingSettings(StudySettings):
    """What is served on what, by how many instances, for how long."""

    served: Annotated[list[ServedModel], Field(min_length=1)] = [
        ServedModel(model="Qwen3-30B-A3B", gpu="A100-80GB"),
        ServedModel(model="Qwen1.5-MoE-A2.7B", gpu="A100-80GB"),
        ServedModel(model="gpt-oss-120b", gpu="H200-141GB"),
    ]
    """Models, each as `model`, a file of config/models/ or config/models/current/, and `gpu`, a key of config/gpus.yaml
    that holds all of its experts. The figure shows the batches of the first."""
    engine: str = "vllm"
    """Serving engine, a profile of config/engines/, whose budget gives the KV pool and whose defaults limit a step."""
    instances: Batches = [1, 2, 4, 8, 16, 32, 64]
    """Numbers of instances that share the arrivals, in ascending order."""
    seconds: float = Field(default=1200, gt=60, le=LARGEST_SECONDS)
    """Seconds of arrivals that are drawn from fitted laws. Recorded arrivals are served whole."""
    seed: int = Field(default=0, ge=0, le=LARGEST_SEED)
    """Seed of the arrivals that are drawn."""
    first_token_s: float = Field(default=5.0, gt=0, le=LARGEST_SECONDS)
    """Instances keep up if 95 % of the requests wait at most this long for their first token."""
    compute_share: Share = 0.5
    """Share of the GPU's peak that attention of prompts reaches, as in the study of prefill."""

    @model_validator(mode="after")
    def _agrees(self) -> "DynamicBatchingSettings":
        names = [each.model for each in self.served]
        if len(set(names)) < len(names):
            raise inconsistent(("served",), f"got {', '.join(names)}, expected every model once")
        if list(self.instances) != sorted(set(self.instances)) or self.instances[-1] > MOST_INSTANCES:
            expected = f"expected ascending numbers of at most {MOST_INSTANCES}"
            raise inconsistent(("instances",), f"got {self.instances}, {expected}")
        return self


ARRIVALS = text("arrivals", "`recorded`: requests as they came; `fitted`: drawn from a law fitted to them.")
TRACE = text("trace", "Service whose arrivals these are, a file of resources/arrivals/.")
INSTANCES = integer("instances", "", "Instances of the model, one GPU each, that share the arrivals.")
DISPATCH = text("dispatch", "How requests are spread: round_robin, or least_loaded, to the fewest requests.")
RATE = number("rate_per_instance", "1/s", "Requests per second and instance.")


def percentiles(name: str, unit: str, what: str) -> tuple:
    """Declare the columns of the 50th, 95th and 99th percentile."""
    return tuple(number(f"{name}_p{each}", unit, f"{each}th percentile of {what}.") for each in (50, 95, 99))


DYNAMIC_BATCHING = Table(
    "table20_dynamic_batching",
    (
        ARRIVALS,
        TRACE,
        MODEL,
        GPU,
        DISPATCH,
        INSTANCES,
        RATE,
        integer("requests", "", "Requests that came."),
        number("refused_pct", "%", "Requests refused, as longer than the native context or the KV pool."),
        flag("keeps_up", "Whether 95 % of the requests get their first token within first_token_s of the settings."),
        number("busy_pct", "%", "Time in which an instance has a step, mean over instances."),
        number("batch_mean", "", "Sequences that decode in a step, mean over the time of steps."),
        *percentiles("batch", "", "the batch size, each decoded token counted once"),
        *(
            column
            for most in (1, 2, 16)
            for column in (
                number(f"tokens_within_{most}_pct", "%", f"Decoded tokens of steps with at most {most} sequences."),
                number(
                    f"requests_within_{most}_pct",
                    "%",
                    f"Requests whose batch size, mean over their own decode steps, rounds to at most {most}.",
                ),
            )
        ),
        number("beside_prompts_pct", "%", "Decoded tokens of steps that also prefill prompts."),
        number(
            "savings_pct",
            "%",
            "Expert bytes that a step does not need, 100 (1 - u(B)/E), B the sequences that decode, mean over tokens.",
        ),
        number("savings_with_prompts_pct", "%", "The same with B all tokens of the step, prompts among them."),
        number("savings_at_p99_pct", "%", "The same at batch_p99: what slots that are rarely too few leave out."),
        number(
            "pool_extension",
            "",
            "KV pool and the bytes of savings_at_p99_pct, over the pool: the extension that memory allows.",
        ),
        number("saved_gb", "GB", "savings_with_prompts_pct of the bytes of all routed experts."),
        number("tokens_per_s", "1/s", "Tokens generated per second and instance, until the last step ends."),
        *percentiles("first_token", "s", "the time from arrival to first token"),
        *percentiles("token", "ms", "the mean time per further token of a request"),
        number("kv_mean_pct", "%", "Share of the KV pool that running sequences use, mean over time and instances."),
        number("kv_most_pct", "%", "The largest share of an instance's pool that they ever used."),
        integer("preempted", "", "Times that a sequence lost its cache, because others found no room."),
        number("reused_pct", "%", "Tokens of prompts that were found in the cache, of prompts that begin alike."),
    ),
)
DISTRIBUTION = Table(
    "batch_distribution",
    (
        ARRIVALS,
        TRACE,
        MODEL,
        GPU,
        INSTANCES,
        RATE,
        integer("batch_from", "", "Fewest sequences that decode in a step of the class; 0: prompts alone."),
        integer("batch_to", "", "Most of the class."),
        number("time_pct", "%", "Time of steps of that class, of the time of all steps."),
        number("tokens_pct", "%", "Decoded tokens of steps of that class."),
        number("savings_pct", "%", "100 (1 - u(B)/E), mean over decoded tokens; empty where there are none."),
    ),
)
CLAIMS = Table(
    "batching_claims",
    (
        text("claim", "What report 002 says."),
        text("report", "Where it says so."),
        ARRIVALS,
        TRACE,
        MODEL,
        GPU,
        number("claimed_pct", "%", "Requests at that batch size, as claimed."),
        integer("instances_enough", "", "Fewest instances that keep up; empty: none of the settings do."),
        number("found_pct", "%", "Requests at that batch size on these."),
        integer("instances_needed", "", "Fewest instances that keep up and make the claim true; empty: none do."),
        number("busy_pct", "%", "Time in which those have a step."),
        number("kv_mean_pct", "%", "Share of their KV pool that is used, mean over time."),
        text("verdict", "holds; holds on more GPUs; or does not hold."),
        integer("instances_needed_fast", "", "instances_needed where steps take the low end of their estimate."),
        text("verdict_fast", "The verdict there."),
        integer("instances_needed_slow", "", "instances_needed where steps take the high end of their estimate."),
        text("verdict_slow", "The verdict there."),
    ),
)
RECORDED_FILES = {
    DYNAMIC_BATCHING: "recorded_batching.csv",
    DISTRIBUTION: "recorded_distribution.csv",
    CLAIMS: "recorded_claims.csv",
}
"""Files of resources/arrivals/ with the rows of recorded arrivals, by their table."""
FIGURE = Figure("dynamic_batching", 7.0, 4.1, table=DISTRIBUTION.name)

STUDY = Study(
    id="dynamic_batching",
    question="Which batch sizes do real arrivals make, and what does Prophet save at these?",
    settings=DynamicBatchingSettings,
    tables=(DYNAMIC_BATCHING, DISTRIBUTION, CLAIMS),
    figures=(FIGURE,),
    reports=("002:111", "002:112", "002:113"),
    minutes=0.3,
)
