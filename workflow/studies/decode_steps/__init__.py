"""How long does a decode step take with every expert resident, and with every expert to be fetched?"""
