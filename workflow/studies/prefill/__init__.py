"""How much longer does it take to prefill a prompt whose experts are streamed from host memory?"""
