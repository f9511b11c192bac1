"""What others measured, held against what this project predicts: memory, times, hit rates and routing."""
