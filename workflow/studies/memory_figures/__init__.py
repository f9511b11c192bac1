"""What is the memory made of, and how does it change with batch size, context and GPU?"""
