"""What others measured, and what this project predicts of it: memory, times, hit rates and routing."""
