"""Programs that tests start in processes of their own hold no tests."""

collect_ignore = ["many_processes.py", "moved_run.py", "over_meshes.py", "rl_over_meshes.py"]
