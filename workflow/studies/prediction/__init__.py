"""How well can the experts of the next layers be predicted, and what does learning add to counting?"""
