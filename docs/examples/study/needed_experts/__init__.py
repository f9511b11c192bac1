"""How many experts does a batch need by each law? An example of a study."""
