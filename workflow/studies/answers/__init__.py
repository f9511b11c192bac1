"""What do the reports advise, and what should one do?"""
