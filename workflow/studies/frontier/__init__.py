"""How much longer can a context be within a limit of the slowdown of a decode step?"""
