"""The declaration of the study that validates simulated prefetching."""

from prophet_moe.settings.fields import StudySettings
from prophet_moe.study import Study
from prophet_moe.tables import GPU, Table, integer, number, text


class PrefetchValidationSettings(StudySettings):
    """The validation of simulated prefetching; its plan is config/measurements/prefetch.yaml."""


PROFILE = text("profile", "What simulated times rest on: measured (a profile of the GPU) or datasheet (lower bounds).")
POLICY = text("policy", "all_resident, on_demand, frequency, prophet or oracle (docs/simulation.md, Against a GPU).")
VERDICT = text(
    "verdict",
    "within tolerance (10 % of the measured time), beyond tolerance, given (the measured time went in) "
    "or not measured.",
)

VALIDATION = Table(
    "prefetch_validation",
    (
        GPU,
        PROFILE,
        text("workload", "Trace and layer sizes that are replayed, a key of config/measurements/prefetch.yaml."),
        POLICY,
        integer("batch", "", "Sequences that decode together, B."),
        integer("slots", "experts", "Slots of each MoE layer."),
        integer("experts", "experts", "Routed experts per MoE layer, E."),
        number("hit_rate", "", "Share of the experts of a layer-step that are in a slot."),
        number("copies", "experts", "Copies of experts per step, as simulated."),
        number("measured_copies", "experts", "Copies of experts per step, as measured; empty where nothing was."),
        number(
            "layers_host_late",
            "layers",
            "Layers of a step that the GPU began before the host had queued them; empty where nothing was measured.",
        ),
        number("simulated_ms_per_token", "ms", "Time per token as simulated: of a step, over the batch size."),
        number("measured_ms_per_token", "ms", "Time per token as measured; empty where nothing was."),
        number(
            "error_pct",
            "%",
            "Error of the simulation, 100 (simulated / measured - 1); empty where nothing was measured.",
        ),
        VERDICT,
    ),
)
SUMMARY = Table(
    "table12_simulated_and_measured",
    (
        GPU,
        PROFILE,
        POLICY,
        integer("configurations", "", "Workloads, batch sizes and numbers of slots, the same for every policy."),
        integer("measured", "", "How many of these were measured."),
        number("simulated_ms_per_token", "ms", "Time per token as simulated, median over the configurations."),
        number("measured_ms_per_token", "ms", "Time per token as measured, median over those measured."),
        number("mean_absolute_error_pct", "%", "Mean size of the error of the simulation."),
        number("largest_absolute_error_pct", "%", "Largest size of the error of the simulation."),
        VERDICT,
    ),
)

STUDY = Study(
    id="prefetch_validation",
    question="Does a simulated decode loop with prefetching take as long as on a measured GPU?",
    settings=PrefetchValidationSettings,
    tables=(VALIDATION, SUMMARY),
    minutes=0.2,
)
