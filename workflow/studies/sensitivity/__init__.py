"""Which assumptions do the results depend on: memory and time, one at a time, two at a time, and all together?"""
