"""Which experts do tokens choose, and how much do consecutive tokens, layers and batches share?"""
