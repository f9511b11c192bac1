"""The declaration of the study of predictors."""

from prophet_moe.settings.fields import StudySettings
from prophet_moe.study import Figure, Study
from prophet_moe.tables import Table


class PredictionSettings(StudySettings):
    """The evaluation of predictors; it has no settings."""


SCORES = Table("prediction", ())
BY_DOMAIN = Table("prediction_by_domain", ())
SETS = Table("predicted_sets", ())
SUMMARY = Table("table6_prediction", ())
FIGURE = Figure("prediction", 7.0, 2.6)

STUDY = Study(
    id="prediction",
    question="How well can the experts of the next layers be predicted, and what does learning add to counting?",
    settings=PredictionSettings,
    tables=(SCORES, BY_DOMAIN, SETS, SUMMARY),
    figures=(FIGURE,),
)
