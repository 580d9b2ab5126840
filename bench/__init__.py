"""Side-by-side benchmarks: each measures beside the machine's limit in the same run, and prints ratios.

make bench                      all of it, as a table; the same as JSON in bench/results/
make bench ARGS="steps"         one part: steps, demo, control, start
make bench ARGS="--peers"       moto beside it (made with uv, outside the project's environment)
"""
