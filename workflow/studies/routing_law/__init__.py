"""How many distinct experts does a batch need, and which law predicts it for a model without a trace?"""
