"""How long does a decode step take if every expert is resident, and if every expert must be fetched?"""
