"""What runs on the machine with the model: training, traces, measurements.

Needs NumPy, pyarrow, PyYAML, PyTorch and Transformers only, so that a bare CUDA machine can run
`python -m prophet_moe.collect` without the rest of the project's environment.
"""
