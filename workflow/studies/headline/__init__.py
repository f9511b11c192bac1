"""How does the headline result change with the rule for resident experts and with other assumptions?"""
