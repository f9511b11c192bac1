"""How much longer may a context be, if a decode step may take at most so many times as long?"""
