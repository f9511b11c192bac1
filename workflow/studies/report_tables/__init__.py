"""What do the tables of the reports say, what do their own constants give, and what is right?"""
