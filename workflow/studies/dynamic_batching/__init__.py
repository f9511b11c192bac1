"""Which batch sizes do real arrivals make, and what does Prophet save at these?"""
