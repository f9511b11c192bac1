"""Which models of today fit on one GPU, and with how long a context?"""
