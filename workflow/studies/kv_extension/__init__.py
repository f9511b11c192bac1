"""How much longer can a context be by memory alone, if every expert is always there in time?"""
