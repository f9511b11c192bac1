"""What becomes of the headline under other rules for the resident experts and other assumptions?"""
