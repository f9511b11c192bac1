"""One module per figure: what it selects from the record, what it says in words, and how it is drawn."""
