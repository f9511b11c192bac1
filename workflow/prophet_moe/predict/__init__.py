"""Prophet's predictor of experts, and the predictors it is compared with."""
