"""The worker programs of the benchmarks, one file for each subject. Each reads its addresses from BENCH_* variables."""
