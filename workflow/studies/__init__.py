"""Studies: one question each, in a folder of its own. A study imports the library, never another study."""
