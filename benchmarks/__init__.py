"""What handful was measured with, the results, and what was decided on them.

`python -m benchmarks` says what there is to run; log/README.md what was decided and why.
"""
