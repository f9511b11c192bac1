"""The declaration of the study of advice: what the reports recommend, and our own decision tree."""

from prophet_moe.settings.fields import StudySettings
from prophet_moe.study import Figure, Study
from prophet_moe.tables import GPU, MODEL, Table, integer, number, text

SHIPPED = "shipped"
"""The formats that a model's authors ship."""
KEEP_ALL, SLOTS, QUANTISE, SLOW_SLOTS, MORE_GPUS = "keep_all", "slots", "quantise", "slow_slots", "more_gpus"
LEAVES = (KEEP_ALL, SLOTS, QUANTISE, SLOW_SLOTS, MORE_GPUS)
"""Leaves of the decision tree, in the order of its questions; the last one answers no question."""


class AnswersSettings(StudySettings):
    """No settings: config/answers.yaml has the advice, its answers and the conditions of judgements."""


ANSWERS = Table(
    "table23_answers",
    (
        text("id", "Identity of the advice, an entry of config/answers.yaml."),
        text("kind", "decision tree, recommendation, faq, talking point or suggested text."),
        text("line", "Documents and lines of the reports (docs/reports.md)."),
        text("said", "What the report says or asks, in a sentence of our own."),
        text("answer", "What is found."),
        text("judgement", "kept, changed or dropped; `not judged` where this build has no rows for it."),
        text("why", "Why, in one sentence."),
        text("read_from", "Tables that the answer and its judgement are computed from."),
    ),
)
DECISION_TREE = Table(
    "decision_tree",
    (
        MODEL,
        integer("num_experts", "", "Routed experts per MoE layer, E."),
        GPU,
        text("bus", "own (the host link of config/gpus.yaml), or a bus of config/buses.yaml."),
        text("link", "Name of that link."),
        text("link_basis", "What the speed of copies rests on: measured (by others), or bound (a specification)."),
        text(
            "leaf",
            "keep_all (every expert fits), slots (the share that the claimed slowdown needs fits), quantise (every "
            "expert fits in fewer bits), slow_slots (a smaller share fits) or more_gpus (fewer than k of a layer fit).",
        ),
        text("format", "At leaf quantise, the widest format in which every expert fits; else shipped."),
        number("resident_share_needed", "", "Share of the experts that the claimed slowdown needs, shipped formats."),
        number("largest_resident_share", "", "Largest share that fits beside the context, shipped formats."),
    ),
)
DECISION_STEPS = Table(
    "decision_steps",
    (
        integer("step", "", "Place of the question, from 1 on."),
        text("question", "The question; empty at the end, where nothing is left to ask."),
        text("leaf", "What a pair of model and machine whose answer is yes has as leaf in decision_tree."),
        text("action", "What to do there."),
        text("detail", "What that means in numbers; empty where this build lacks them."),
        integer("pairs_asked", "", "Pairs of model and machine that come to the question."),
        integer("pairs_yes", "", "Pairs whose answer is yes."),
        text("read_from", "Tables that the texts are computed from."),
    ),
)
FIGURE = Figure("decision_tree", 7.0, 4.0, table=DECISION_STEPS.name)

STUDY = Study(
    id="answers",
    question="What do the reports advise, and what should one do?",
    settings=AnswersSettings,
    tables=(ANSWERS, DECISION_TREE, DECISION_STEPS),
    figures=(FIGURE,),
    minutes=3,
)
