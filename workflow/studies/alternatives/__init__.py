"""What do offloading, quantisation and Prophet cost in time, and what do they leave on the GPU?"""
