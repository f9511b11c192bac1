"""Which of the reports' claims hold?"""
