"""Start-up logs and rows of memory that the tests of observations read."""

import csv
import io

VLLM_V1 = """\
INFO 09-24 10:00:00 [api_server.py:1896] vLLM API server version 0.10.2
INFO 09-24 10:00:00 [utils.py:328] non-default args: {'tensor_parallel_size': 8, 'enable_expert_parallel': True, 'max_num_seqs': 256}
INFO 09-24 10:00:10 [core.py:75] Initializing a V1 LLM engine (v0.10.2) with config: model='Qwen/Qwen3-235B-A22B-Instruct-2507-FP8', dtype=torch.bfloat16, max_seq_len=32768, tensor_parallel_size=8, pipeline_parallel_size=1, quantization=fp8, enforce_eager=False, kv_cache_dtype=auto
(Worker_TP2 pid=1) INFO 09-24 10:01:00 [gpu_model_runner.py:2392] Model loading took 27.7200 GiB and 30.1 seconds
(Worker_TP0 pid=2) INFO 09-24 10:01:00 [gpu_model_runner.py:2392] Model loading took 27.7200 GiB and 30.1 seconds
(Worker_TP2 pid=1) INFO 09-24 10:01:30 [gpu_worker.py:298] Available KV cache memory: 10.64 GiB
(Worker_TP0 pid=2) INFO 09-24 10:01:30 [gpu_worker.py:298] Available KV cache memory: 10.68 GiB
INFO 09-24 10:01:31 [kv_cache_utils.py:864] GPU KV cache size: 237,344 tokens
INFO 09-24 10:01:31 [kv_cache_utils.py:868] Maximum concurrency for 32,768 tokens per request: 7.24x
(Worker_TP2 pid=1) INFO 09-24 10:02:00 [gpu_model_runner.py:3118] Graph capturing finished in 20 secs, took 3.45 GiB
(Worker_TP2 pid=1) INFO 09-24 10:02:01 [gpu_worker.py:391] Free memory on device (43.9/44.42 GiB) on startup. Desired GPU memory utilization is (0.9, 39.98 GiB). Actual usage is 27.72 GiB for weight, 1.4 GiB for peak activation, 0.21 GiB for non-torch memory, and 3.45 GiB for CUDAGraph memory.
"""  # noqa: E501
"""A start of vLLM 0.10 that prints the numbers of observation m008."""
VLLM_V0 = """\
INFO 03-15 12:00:00 [llm_engine.py:243] Initializing a V0 LLM engine (v0.7.2) with config: model='deepseek-ai/DeepSeek-R1', dtype=torch.bfloat16, max_seq_len=128000, tensor_parallel_size=8, pipeline_parallel_size=1
INFO 03-15 12:10:00 [model_runner.py:1115] Loading model weights took 83.8800 GB
INFO 03-15 12:11:00 [worker.py:267] the current vLLM instance can use total_gpu_memory (139.81GiB) x gpu_memory_utilization (0.85) = 118.84GiB
INFO 03-15 12:11:00 [worker.py:267] model weights take 83.88GiB; non_torch_memory takes 7.16GiB; PyTorch activation peak memory takes 6.37GiB; the rest of the memory reserved for KV Cache is 21.43GiB.
INFO 03-15 12:11:01 [executor_base.py:111] # cuda blocks: 18418, # CPU blocks: 3000
INFO 03-15 12:11:01 [executor_base.py:116] Maximum concurrency for 128000 tokens per request: 2.30x
"""  # noqa: E501
"""A start of vLLM 0.7 that prints the numbers of observation m004."""
SGLANG = """\
[2025-07-22 06:00:00] server_args=ServerArgs(model_path='Qwen/Qwen3-235B-A22B-FP8', dtype='auto', kv_cache_dtype='auto', quantization='fp8', context_length=None, mem_fraction_static=0.93, chunked_prefill_size=8192, tp_size=4, dp_size=1, ep_size=1, disable_cuda_graph=False)
[2025-07-22 06:01:00 TP0] Load weight begin. avail mem=77.50 GB
[2025-07-22 06:02:00 TP0] Load weight end. type=Qwen3MoeForCausalLM, dtype=torch.bfloat16, avail mem=22.10 GB, mem usage=55.40 GB.
[2025-07-22 06:02:10 TP0] KV Cache is allocated. #tokens: 367404, K size: 8.23 GB, V size: 8.23 GB
[2025-07-22 06:03:00 TP0] Capture cuda graph end. Time elapsed: 9.00 s. mem usage=1.20 GB. avail mem=4.00 GB.
[2025-07-22 06:03:01 TP0] max_total_num_tokens=367404, chunked_prefill_size=8192, max_prefill_tokens=16384, max_running_requests=4096, context_len=40960
"""  # noqa: E501
"""A start of SGLang that prints the numbers of observation m029."""
ROW = {
    "id": "a1",
    "engine": "vllm",
    "engine_version": "0.10.2 (V1)",
    "model": "Qwen3-30B-A3B",
    "weight_dtype": "bf16",
    "kv_dtype": "auto",
    "gpu": "H100 80GB",
    "tp": "1",
    "gpu_memory_utilization": "0.9",
    "total_gpu_gib": "79.11",
    "weights_gib_per_gpu": "56.8803",
    "source": "a test",
}
"""A valid row of memory, as text."""


def csv_of(*rows: dict[str, str]) -> str:
    """The text of a file of rows with the columns of the first one."""
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([rows[0], *(row.values() for row in rows)])
    return stream.getvalue()
