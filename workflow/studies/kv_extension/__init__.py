"""How much longer may a context be, if every expert that Prophet keeps were there in time?"""
